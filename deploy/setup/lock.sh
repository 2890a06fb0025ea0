#!/bin/sh
# Resolve all dependencies anew and write them down with their hashes, for every Python and platform at once:
# deploy/requirements/NAME.txt for each extra NAME that is installed somewhere. $1 is the program uv.
set -eu
uv=${1:?the program uv}
cd "$(dirname "$0")/../.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
compile() {
    "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --upgrade "$@"
}
mkdir -p deploy/requirements
compile --extra test --output-file deploy/requirements/test.txt
# The others get the versions that the tests run with.
same="--constraints deploy/requirements/test.txt"
compile $same --output-file deploy/requirements/core.txt
for name in laptop s3 ingestion feature-extraction genre-worker mood-worker gateway cli; do
    # What the engines ask for and do not import to run a network: compilers, servers, converters.
    case $name in
        genre-worker) unused="google-pasta grpcio libclang wheel" ;;
        mood-worker) unused="flatbuffers packaging protobuf" ;;
        *) unused="" ;;
    esac
    omit=""
    for package in $unused; do omit="$omit --no-emit-package $package"; done
    compile $same $omit --extra "$name" --output-file "deploy/requirements/$name.txt"
done
