#!/bin/sh
# Classify a file or a URL with Tonestream's HTTP API, and print the state of the track as JSON.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FILE|URL" >&2; exit 2; }
server=${TONESTREAM_URL:-http://localhost:8000}
request_id="curl-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"

# --retry repeats after a refused connection, a timeout, and 429, 502, 503 and 504, and waits as Retry-After says.
call() {
    curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --connect-timeout 10 --max-time 3600 \
        ${TONESTREAM_API_KEY:+--header "Authorization: Bearer $TONESTREAM_API_KEY"} "$@"
}

case $1 in
http://* | https://*)
    audio_url=$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')
    call --header "Idempotency-Key: $request_id" --header "Content-Type: application/json" \
        --data "{\"audio_url\": \"$audio_url\"}" "$server/v1/tracks" >/dev/null
    ;;
*)
    call --header "Idempotency-Key: $request_id" --header "Content-Type: application/octet-stream" \
        --header "X-Filename: $(basename -- "$1" | tr -d '\n' | od -An -v -tx1 | tr -d '\n' | tr ' ' '%')" \
        --request POST --upload-file "$1" "$server/v1/tracks" >/dev/null
    ;;
esac

while :; do
    state=$(call "$server/v1/tracks/$request_id?wait=30")
    case $state in
    *'"stage":"ok"'* | *'"stage":"partial"'* | *'"stage":"failed"'*) break ;;
    esac
done
printf '%s\n' "$state"
