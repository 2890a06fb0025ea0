#!/bin/sh
# Name the base images by digest: asks their registry which bytes each tag names today, for all platforms, and writes
# name:tag@sha256:... wherever the repository names name:tag. Needs Docker with buildx, and a way to the registry.
set -eu
cd "$(dirname "$0")/../.."
files="deploy/docker/Dockerfile docker-compose.yml deploy/kubernetes/components/kafka-one/kafka.yaml deploy/kubernetes/components/redis/redis.yaml"
images=$(grep -hoE '(python|apache/kafka|redis):[0-9][A-Za-z0-9._-]*' $files | sort -u)
[ -n "$images" ] || { echo "no base image was found in: $files" >&2; exit 1; }
for image in $images; do
    digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
    case $digest in
        sha256:*) ;;
        *) echo "the registry named no digest of $image: $digest" >&2; exit 1 ;;
    esac
    for file in $files; do
        # A digest that stands there already gives way to the new one.
        sed -E "s#(^|[ =])($image)(@sha256:[0-9a-f]{64})?([[:space:]]|\$)#\1\2@$digest\4#g" "$file" >"$file.pinned"
        cat "$file.pinned" >"$file" # keeps its mode
        rm "$file.pinned"
    done
    echo "$image@$digest"
done
