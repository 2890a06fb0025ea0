"""ffmpeg: is it there, does it run, and does it decode what music comes in?"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from services.cli.doctor.finding import Finding, fail, ok, warn
from shared.audio.decode import MissingDependencyError, find_ffmpeg
from shared.settings import Settings

_SUBJECT: Final = "ffmpeg"
_TIMEOUT_S: Final = 10.0
#: By format, ffmpeg's decoders of it; one of them is enough.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "MP3": ("mp3float", "mp3"),
    "AAC": ("aac",),
    "FLAC": ("flac",),
    "Vorbis": ("vorbis", "libvorbis"),
    "Opus": ("opus", "libopus"),
    "ALAC": ("alac",),
    "WMA": ("wmav2",),
    "WAV": ("pcm_s16le",),
}
_INSTALL: Final = (
    "install a usual build of ffmpeg (apt install ffmpeg, brew install ffmpeg), or name one in TONESTREAM_FFMPEG"
)


def ffmpeg(settings: Settings) -> Iterator[Finding]:
    """Version, and the decoders of the common formats."""
    try:
        program = find_ffmpeg(settings.ffmpeg)
    except MissingDependencyError as error:
        yield fail(_SUBJECT, str(error), _INSTALL)
        return
    try:
        version = _said(program, "-version").splitlines()[0].removeprefix("ffmpeg version ").split(" Copyright")[0]
        listing = _said(program, "-decoders")
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        yield fail(_SUBJECT, f"{program} does not run: {error}", _INSTALL)
        return
    decoders = {
        words[1] for line in listing.splitlines() if len(words := line.split()) > 1 and words[0].startswith("A")
    }
    missing = [name for name, any_of in _NEEDED.items() if decoders.isdisjoint(any_of)]
    if missing:
        yield warn(_SUBJECT, f"{version} at {program} cannot decode {', '.join(missing)}", _INSTALL)
    else:
        yield ok(_SUBJECT, f"{version} at {program}, with all common decoders")


def _said(program: str, argument: str) -> str:
    done = subprocess.run(
        [program, "-hide_banner", argument],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout
