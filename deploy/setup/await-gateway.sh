#!/bin/sh
# Wait until the gateway's container is healthy, and say where it is. The arguments are the compose command.
set -eu
container=$("$@" ps -q gateway)
port=$("$@" port gateway 8080 | sed 's/.*://')
echo "waiting for the gateway"
tries=0
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 90 ]; then
        echo "the gateway is not healthy after three minutes: make logs says why" >&2
        exit 1
    fi
    sleep 2
done
echo "Tonestream is at http://localhost:$port/"
