#!/bin/sh
# Music to be taught from, with no need for genres: the free music of games in Debian, as links in one folder.
#   sudo training/distillation/debian-music.sh .cache/music
set -eu
folder=${1:?a folder to put it in}
packages="asc-music drascula-music fretsonfire-songs-muldjord fretsonfire-songs-sectoid hyperrogue-music nexuiz-music
    singularity-music ufoai-music warzone2100-music wesnoth-1.16-music"
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $packages unzip >&2
mkdir -p "$folder"
for package in $packages; do
    mkdir -p "$folder/$package"
    dpkg -L "$package" | grep -E '\.(ogg|opus|mp3|flac)$' | while read -r file; do
        ln -sf "$file" "$folder/$package/$(basename "$(dirname "$file")")-$(basename "$file")"
    done
    # Two games keep their music in archives of their own.
    dpkg -L "$package" | grep -E '\.pk3$' | while read -r archive; do
        unzip -q -o "$archive" '*.ogg' -d "$folder/$package"
    done
done
