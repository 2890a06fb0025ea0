#!/bin/sh
# Install the packages of the locked file $1, each checked by its hash, without what no service uses of them: their own
# tests, and the headers for those who compile against TensorFlow.
set -eu
pip install --no-deps --require-hashes --requirement "$1"
packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$packages" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$packages/tensorflow/include"
