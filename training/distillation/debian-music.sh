#!/bin/sh
# Music to learn from, with no need for genres: the free music of games in Debian, in one folder. Nothing is installed.
#   training/distillation/debian-music.sh .cache/music
# Needs apt-get (with package lists: apt-get update), dpkg-deb and unzip. Downloads 4 GB; some 2 GB of music remain.
set -eu
folder=$(mkdir -p "${1:?a folder to put it in}" && cd "$1" && pwd)
packages="adonthell-data amoebax-data ardentryst asc-music btanks-data caveexpress-data cube2-data drascula-music
    enigma-data extremetuxracer-data fillets-ng-data flare-game freedink-data freedroidrpg-data freeorion-data
    fretsonfire-songs-muldjord fretsonfire-songs-sectoid gigalomania-data glob2-data gunroar-data hedgewars-data
    hex-a-hop-data hyperrogue-music krank lincity-ng-data lugaru-data marsshooter-data megaglest-data mu-cade-data
    naev-data nexuiz-music openarena-088-data openclonk-data parsec47-data pathological planetblupi-music-ogg
    powermanga-data pushover-data singularity-music starfighter-data supertux-data supertuxkart-data titanion-data
    torus-trooper-data trackballs-data tumiki-fighters-data tuxmath-data ufoai-music unknown-horizons
    warmux-data warzone2100-music wesnoth-1.16-music widelands-data wizznic-data xmoto-data zaz-data"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in $packages; do
    if [ -d "$folder/$package" ]; then continue; fi
    rm -rf "${work:?}"/*
    (cd "$work" && apt-get download -q "$package" >&2) || { echo "left out: $package" >&2; continue; }
    dpkg-deb -x "$work"/*.deb "$work/files"
    # Some games keep their music in archives.
    find "$work/files" -type f \( -name '*.pk3' -o -name '*.zip' \) | while read -r archive; do
        unzip -q -o "$archive" -d "$archive.unpacked" || true
    done
    mkdir "$work/music"
    # Files of less than 100 KB are sounds, not music.
    find "$work/files" -type f \( -name '*.ogg' -o -name '*.opus' -o -name '*.mp3' -o -name '*.flac' \) -size +100k |
        while read -r file; do
            cp "$file" "$work/music/$(basename "$(dirname "$file")")-$(basename "$file")"
        done
    mv "$work/music" "$folder/$package"
done
