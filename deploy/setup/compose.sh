#!/bin/sh
# Docker Compose with these arguments, whichever of its programs is here; one sentence if there is none that works.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

command -v docker >/dev/null || command -v docker-compose >/dev/null ||
    fail "Docker is missing: https://docs.docker.com/engine/install/ (\`make web\` needs none)"
if docker compose version >/dev/null 2>&1; then
    set -- docker compose "$@"
elif command -v docker-compose >/dev/null; then
    set -- docker-compose "$@"
else
    fail "Docker Compose is missing: https://docs.docker.com/compose/install/ (\`make web\` needs neither)"
fi
if ! said=$(docker version --format '{{.Server.Version}}' 2>&1); then
    case $said in
        *"permission denied"*) fail "this user may not use Docker: sudo usermod -aG docker \$USER, then log in again" ;;
        *) fail "the Docker engine does not answer: $(echo "$said" | tail -n 1)" ;;
    esac
fi
exec "$@"
