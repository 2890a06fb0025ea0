#!/bin/sh
# Make sure that the tests find a real Redis, a real Kafka and a real browser, as far as this machine allows. Never
# fails: the tests themselves say, loudly, what they could not get.
set -u

missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v espeak-ng >/dev/null || missing="$missing espeak-ng"
command -v promtool >/dev/null || missing="$missing prometheus"
if command -v apt-get >/dev/null; then # elsewhere a browser is no package of the command line
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$missing chromium"
fi
if [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && ! docker info >/dev/null 2>&1; then
    command -v java >/dev/null || missing="$missing default-jre-headless"
    command -v mvn >/dev/null || missing="$missing maven"
fi
# The manifests of deploy/kubernetes are rendered by kustomize, which kubectl has, too.
if ! command -v kubectl >/dev/null && ! command -v kustomize >/dev/null && [ ! -x .cache/bin/kustomize ]; then
    GOBIN="$PWD/.cache/bin" go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 ||
        echo "the tests would like kubectl or kustomize" >&2
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the tests:$missing" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
elif command -v brew >/dev/null; then
    echo "installing for the tests:$missing" >&2
    brew install --quiet $(echo "$missing" | sed 's/redis-server/redis/; s/default-jre-headless/openjdk/')
else
    echo "the tests would like:$missing (or a running Docker engine)" >&2
fi
exit 0
