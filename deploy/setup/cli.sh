#!/bin/sh
# The command line in a container, with the arguments that RUN holds. Quotes in RUN group words as in a shell; nothing
# else in it is special, so that a URL keeps its & and ;. The arguments are the Compose command.
set -euf
compose="$*"
words=$(printf '%s\n' "${RUN:---help}" | xargs -n 1 printf '%s\n' 2>/dev/null) || {
    echo "RUN has a quote without its counterpart: $RUN" >&2
    exit 2
}
IFS='
'
set -- $words
unset IFS
exec $compose run --rm --no-deps cli "$@"
