#!/bin/sh
# Install what the recipes need into .cache/recipes, each in a folder of its own. What cannot be had is named, and the
# tests say so again. Argument: the virtual environment with Tonestream in it.
set -u
cd "$(dirname "$0")/../.." || exit 1
venv=${1:-.venv}
cache=$PWD/.cache/recipes
mkdir -p "$cache"

# Runs a step unless it was done for the same files before.
step() { # name, file that decides, function
    if cmp -s "$2" "$cache/$1.done"; then return; fi
    echo "recipes: setting up $1"
    if "$3" >"$cache/$1.log" 2>&1; then
        cp "$2" "$cache/$1.done"
    else
        echo "recipes: $1 could not be set up: $(tail -n 1 "$cache/$1.log")" >&2
    fi
}

node_recipe() {
    mkdir -p "$cache/node" && cp recipes/node/package.json recipes/node/package-lock.json "$cache/node" &&
        npm ci --prefix "$cache/node" --no-audit --no-fund
}

asyncapi_parser() {
    mkdir -p "$cache/asyncapi" && cp deploy/setup/asyncapi/package.json deploy/setup/asyncapi/package-lock.json "$cache/asyncapi" &&
        npm ci --prefix "$cache/asyncapi" --ignore-scripts --no-audit --no-fund
}

go_recipe() {
    GOMODCACHE="$cache/go/mod" GOCACHE="$cache/go/build" GOFLAGS=-modcacherw \
        go build -C recipes/go -o "$cache/go/classify" .
}

beets_recipe() {
    "$venv/bin/python" -m venv "$cache/beets" && "$cache/beets/bin/pip" install --quiet -r recipes/beets/requirements.txt
}

mcp_recipe() {
    "$venv/bin/python" -m venv "$cache/mcp" && "$cache/mcp/bin/pip" install --quiet -r recipes/mcp/requirements.txt || return 1
    # Tonestream itself comes from the environment of the tests, behind what was installed here.
    "$venv/bin/python" -c 'import os, sys; print(os.getcwd()); print(*filter(lambda p: p.endswith("-packages"), sys.path), sep="\n")' \
        >"$(echo "$cache"/mcp/lib/python3.*/site-packages)/tonestream.pth"
}

step node recipes/node/package-lock.json node_recipe
step asyncapi deploy/setup/asyncapi/package-lock.json asyncapi_parser
step go recipes/go/go.sum go_recipe
step beets recipes/beets/requirements.txt beets_recipe
step mcp recipes/mcp/requirements.txt mcp_recipe
