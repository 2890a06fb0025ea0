#!/bin/sh
# Make the virtual environment $1 with a Python of at least 3.11 and install this project into it, with the dependencies of
# its extra $2 (laptop, test): the very files that deploy/requirements names by their hashes.
set -eu

venv=$1
extra=$2

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && recent "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "Tonestream needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2
    exit 1
}

make_venv() { "$python" -m venv "$venv" >/dev/null 2>&1 && [ -x "$venv/bin/pip" ]; }

python=$(find_python)
if [ ! -x "$venv/bin/pip" ] && ! make_venv; then
    rm -rf "$venv"
    # Debian ships Python without its venv module.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv" >/dev/null
    fi
    make_venv || {
        echo "cannot make a virtual environment with $python; on Debian: sudo apt install python$version-venv" >&2
        exit 1
    }
fi
echo "installing Tonestream into $venv (a few minutes the first time)" >&2
pip() { "$venv/bin/pip" --quiet --disable-pip-version-check "$@"; }
# The file names everything that is needed. Without --no-deps, pip before 24 looks beyond it: for the newest version of a
# package with an extra, which then has no hash.
pip install --no-deps --require-hashes --requirement "deploy/requirements/$extra.txt"
pip install --no-deps --editable .
