#!/bin/sh
# Free audio from Debian's packages to learn from, in one folder a package. Nothing is installed.
#   training/distillation/debian-audio.sh music .cache/music      the music of games: 4 GB to download, 2 GB remain
#   training/distillation/debian-audio.sh speech .cache/speech    people who speak, in a dozen languages
#   training/distillation/debian-audio.sh sounds .cache/sounds    neither: effects, machines, keys
# Needs apt-get (with package lists: apt-get update), dpkg-deb and unzip.
set -eu
kind=${1:?music, speech or sounds}
folder=$(mkdir -p "${2:?a folder to put it in}" && cd "$2" && pwd)
smallest=2k
case $kind in
music)
    # Smaller files are sounds, not music.
    smallest=100k
    packages="adonthell-data amoebax-data ardentryst asc-music btanks-data caveexpress-data cube2-data drascula-music
        enigma-data extremetuxracer-data fillets-ng-data flare-game freedink-data freedroidrpg-data freeorion-data
        fretsonfire-songs-muldjord fretsonfire-songs-sectoid gigalomania-data glob2-data gunroar-data hedgewars-data
        hex-a-hop-data hyperrogue-music krank lincity-ng-data lugaru-data marsshooter-data megaglest-data mu-cade-data
        naev-data nexuiz-music openarena-088-data openclonk-data parsec47-data pathological planetblupi-music-ogg
        powermanga-data pushover-data singularity-music starfighter-data supertux-data supertuxkart-data
        titanion-data torus-trooper-data trackballs-data tumiki-fighters-data tuxmath-data ufoai-music
        unknown-horizons warmux-data warzone2100-music wesnoth-1.16-music widelands-data wizznic-data xmoto-data
        zaz-data"
    ;;
speech)
    packages="fillets-ng-data-cs fillets-ng-data-nl klettres-data ktuberling-data pocketsphinx-testdata"
    ;;
sounds)
    packages="bucklespring-data colobot-common-sounds oxygen-sounds searchandrescue-data gnome-audio
        sound-theme-freedesktop"
    ;;
*)
    echo "music, speech or sounds, not $kind" >&2
    exit 2
    ;;
esac
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
    mkdir "$work/found"
    find "$work/files" -type f -size "+$smallest" \( -name '*.ogg' -o -name '*.oga' -o -name '*.opus' -o -name '*.mp3' \
        -o -name '*.flac' -o -name '*.wav' \) | while read -r file; do
        # Sounds of more than 300 KB in a packed format are the music of a game.
        case $kind/$file in music/*.wav | music/*.oga) continue ;; esac
        case $kind/$file in sounds/*.ogg) [ "$(wc -c <"$file")" -lt 300000 ] || continue ;; esac
        cp "$file" "$work/found/$(basename "$(dirname "$file")")-$(basename "$file")"
    done
    mv "$work/found" "$folder/$package"
done
