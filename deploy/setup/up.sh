#!/bin/sh
# Build the images, start everything, wait until it works, and say where to look. Whatever fails is named, with the last
# lines of its log. The arguments are the Compose command. UP_WAIT_S is the longest wait, once the containers run.
set -eu
compose="$*"
began=$(date +%s)

# What Docker knows of a container, by its label: service, one-off or not, state, exit status, health, restarts, error.
known='{{index .Config.Labels "com.docker.compose.service"}}|{{index .Config.Labels "com.docker.compose.oneoff"}}'
known=$known'|{{.State.Status}}|{{.State.ExitCode}}|{{with .State.Health}}{{.Status}}{{end}}|{{.RestartCount}}|{{.State.Error}}'

each_container() {
    for container in $($compose ps -a -q); do
        # One that was removed meanwhile is none.
        if line=$(docker inspect --format "$container|$known" "$container" 2>/dev/null); then
            echo "$line"
        fi
    done
}

port_of() {
    docker inspect --format '{{range .HostConfig.PortBindings}}{{range .}}{{.HostPort}} {{end}}{{end}}' "$1" | sed 's/ *$//'
}

# Why a container is no good, in words; nothing if it is good, or may become so.
complaint() { # service state exit-status health restarts error container
    case "$2 $3 $4" in
        running*unhealthy) echo "$1 is unhealthy" ;;
        "exited 0"* | running* | restarting* | created*)
            case $6 in
                *"address already in use"* | *"port is already allocated"*)
                    variable=$(echo "$1" | tr 'a-z-' 'A-Z_')_PORT
                    echo "$1 cannot start: something else listens on port $(port_of "$7") of this machine." \
                        "Stop it, or take another port: $variable=18080 make up"
                    ;;
                ?*) echo "$1 cannot start: $6" ;;
                *) if [ "$5" -gt 2 ]; then echo "$1 ends again and again"; fi ;;
            esac
            ;;
        *) echo "$1 ended with status $3" ;;
    esac
}

# Print all complaints, each with the end of the log. Succeeds if there is one.
complain() {
    each_container | {
        found=1
        while IFS='|' read -r container service oneoff state status health restarts error; do
            [ "$oneoff" != True ] || continue
            said=$(complaint "$service" "$state" "$status" "$health" "$restarts" "$error" "$container")
            [ -n "$said" ] || continue
            found=0
            echo "$said" >&2
            docker logs --tail 6 "$container" 2>&1 | cut -c 1-400 | uniq | sed 's/^/    /' >&2
        done
        exit $found
    }
}

# The services that do not work yet, with what they wait for.
waiting() {
    each_container | while IFS='|' read -r container service oneoff state status health restarts error; do
        [ "$oneoff" != True ] || continue
        case "$state $health" in
            "running healthy") ;;
            "running " | exited*) continue ;;
            *) echo "$service: ${health:-$state}" && continue ;;
        esac
        case $service in
            # These have no such question. Their healthy is ready.
            kafka | redis) continue ;;
        esac
        ready=$(docker exec "$container" python -I -S /app/health_probe.py readyz 2>&1) ||
            echo "$service: $(echo "$ready" | sed -n 's/.*"because": *"\([^"]*\)".*/\1/p')"
    done
}

# Whatever is missing is said once.
$compose ps -q >/dev/null || exit 1

# A second `up` keeps the number of workers that `make scale` chose.
scales=
for service in ingestion feature-extraction genre-worker mood-worker aggregator; do
    running=$($compose ps -q $service 2>/dev/null | wc -l)
    if [ "$running" -gt 1 ]; then scales="$scales --scale $service=$((running))"; fi
done

if ! $compose up --build --detach $scales; then
    complain || true
    exit 1
fi

patience=${UP_WAIT_S:-300}
started=$(date +%s)
said=
while not_yet=$(waiting) && [ -n "$not_yet" ]; do
    if complain; then exit 1; fi
    if [ $(($(date +%s) - started)) -ge "$patience" ]; then
        echo "after $patience seconds these do not work yet:" >&2
        echo "$not_yet" | sed 's/^/    /' >&2
        echo "they may need longer on this machine; \`make logs\` shows what they do, \`make up\` waits again" >&2
        exit 1
    fi
    if [ -z "$said" ]; then said=1 && echo "waiting until everything works"; fi
    sleep 2
done
if complain; then exit 1; fi

page=$($compose port gateway 8080 | sed 's/.*://')
cat <<END
Tonestream works, after $(($(date +%s) - began)) s.
    the page         http://localhost:$page/    (the HTTP API: http://localhost:$page/openapi.json)
    submit a track   make cli RUN="submit https://example.org/song.mp3"
    the results      make cli RUN="results --follow"
    the logs         make logs
    the end          make down    (data stays)
END
