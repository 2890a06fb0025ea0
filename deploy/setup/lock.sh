#!/bin/sh
# Resolve all dependencies anew and write them down with their hashes, for every Python and platform at once:
# deploy/requirements/NAME.txt for each extra NAME that is installed somewhere. $1 is the program uv.
set -eu
uv=${1:?the program uv}
cd "$(dirname "$0")/../.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --upgrade "$@"
}
mkdir -p deploy/requirements
compile pyproject.toml --extra test --output-file deploy/requirements/test.txt
# The others get the versions that the tests run with.
same="--constraints deploy/requirements/test.txt"
compile pyproject.toml $same --output-file deploy/requirements/core.txt
# What builds the package where nothing is downloaded for it.
sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml | compile - $same --output-file deploy/requirements/build.txt
for name in laptop s3 ffmpeg ingestion feature-extraction genre-worker onnx mood-worker gateway cli telemetry; do
    # What the engines ask for and do not import to run a network: compilers, servers, converters.
    case $name in
        genre-worker) unused="google-pasta grpcio libclang wheel" ;;
        onnx | mood-worker) unused="flatbuffers packaging protobuf" ;;
        *) unused="" ;;
    esac
    omit=""
    for package in $unused; do omit="$omit --no-emit-package $package"; done
    compile pyproject.toml $same $omit --extra "$name" --output-file "deploy/requirements/$name.txt"
done
