"""The tags of each kind of file behind one interface. The only module that knows mutagen.

Which frame holds what: ID3 after id3.org and Picard's mapping, Vorbis comments, MP4 and APEv2 after the mappings of
Picard and Mp3tag. Energy goes where Mixed In Key puts it and other DJ software looks for it: ``TXXX:EnergyLevel``, a
whole number from 1 to 10, and the same name elsewhere.
"""

# mypy: disable-error-code="no-untyped-call"
# (mutagen has types for a part of its functions.)

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from services.library.tagging.errors import MutagenMissingError, Refusal, TagRefusedError
from services.library.tagging.rules import Field
from shared.audio.containers import container
from shared.contracts.errors import TonestreamError

#: The prefix of our own fields.
EVIDENCE_PREFIX: Final = "TONESTREAM_"
_ITUNES: Final = "----:com.apple.iTunes:"
_TEXT_ENCODING: Final = re.compile(r"encoding=<Encoding\.\w+: \d>,? ?")
_V23: Final = 3
_V24: Final = 4
#: ``TAG`` and 125 bytes, with room for the longer forms of it.
_TAIL: Final = 512
#: How much of a RIFF INFO list is read, bytes.
_LONGEST_INFO: Final = 64 * 1024
_NAMED: Final = "MP3, FLAC, Ogg (Vorbis, Opus), M4A, WAV, AIFF and WavPack"

Slots = Mapping[Field, tuple[str, ...]]

_ID3_24: Final[Slots] = {
    Field.GENRE: ("TCON",),
    Field.MOOD: ("TMOO", "TXXX:MOOD"),
    Field.BPM: ("TBPM",),
    Field.KEY: ("TKEY",),
    Field.ENERGY: ("TXXX:EnergyLevel",),
}
#: TMOO exists since ID3v2.4.
_ID3_23: Final[Slots] = {**_ID3_24, Field.MOOD: ("TXXX:MOOD", "TMOO")}
_VORBIS: Final[Slots] = {
    Field.GENRE: ("GENRE",),
    Field.MOOD: ("MOOD",),
    Field.BPM: ("BPM", "TEMPO", "TBPM"),
    # Picard and Virtual DJ write KEY, most others INITIALKEY.
    Field.KEY: ("INITIALKEY", "KEY", "TKEY"),
    Field.ENERGY: ("ENERGYLEVEL",),
}
_MP4: Final[Slots] = {
    # A numbered genre (gnre) is read as ©gen, and gives way to it when the file is written.
    Field.GENRE: ("\xa9gen",),
    Field.MOOD: (f"{_ITUNES}MOOD",),
    Field.BPM: ("tmpo", f"{_ITUNES}BPM"),
    Field.KEY: (f"{_ITUNES}initialkey", f"{_ITUNES}KEY"),
    Field.ENERGY: (f"{_ITUNES}ENERGYLEVEL",),
}
_APE: Final[Slots] = {
    Field.GENRE: ("Genre",),
    Field.MOOD: ("Mood",),
    Field.BPM: ("BPM",),
    Field.KEY: ("InitialKey", "Key"),
    Field.ENERGY: ("EnergyLevel",),
}


def require_mutagen() -> None:
    """Raises MutagenMissingError."""
    try:
        import mutagen  # noqa: F401
    except ImportError as error:
        raise MutagenMissingError from error


class TagFile(ABC):
    """The tags of one file, in memory until ``save``.

    A key names a frame as taggers show it: ``TCON``, ``TXXX:MOOD``, ``GENRE``. The raw form of a value is JSON that
    holds all that is needed to write it again as it was.
    """

    #: What stands before the name of an evidence field.
    evidence_key: ClassVar[str] = EVIDENCE_PREFIX

    def __init__(self, system: str, created: bool, slots: Slots) -> None:
        #: Such as ``ID3v2.3``.
        self.system = system
        #: The file had no such tags before.
        self.created = created
        #: Where each field is kept: first where it is written, then where others may have put it.
        self.slots = slots

    @abstractmethod
    def keys(self) -> list[str]:
        """The keys of all values that can be read by ``text``."""

    @abstractmethod
    def text(self, key: str) -> tuple[str, ...]:
        """The values of ``key`` for people; empty if there are none."""

    @abstractmethod
    def raw(self, key: str) -> str | None:
        """The raw form of what ``key`` holds; None if it holds nothing."""

    def written(self, values: Sequence[str]) -> tuple[str, ...]:
        """How ``values`` read once they are written."""
        return tuple(values)

    @abstractmethod
    def put(self, key: str, values: Sequence[str]) -> None:
        """Replace what ``key`` holds; ``values`` are not empty."""

    @abstractmethod
    def put_raw(self, key: str, raw: str) -> None:
        """Replace what ``key`` holds by what ``raw`` returned once. Raises ValueError for anything else."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """``key`` holds nothing."""

    @abstractmethod
    def contents(self) -> Counter[tuple[str, str]]:
        """Every frame and picture with a hash of what it holds, to compare two states of a file."""

    @abstractmethod
    def save(self, file: Path) -> None:
        """Write the tags into ``file``, a copy of the file that they came from."""

    @abstractmethod
    def drop(self, file: Path) -> None:
        """Remove the tags from ``file`` altogether."""

    def existing(self, field: Field) -> list[str]:
        """The keys among the slots of ``field`` that hold a value, in the file's own spelling. A zero is none."""
        keys = self.keys()
        found = []
        for slot in self.slots[field]:
            found += [key for key in keys if key.lower() == slot.lower() and any(map(_says_something, self.text(key)))]
        return list(dict.fromkeys(found))

    def elsewhere(self, field: Field) -> tuple[str, ...]:
        """What the file says about ``field`` in other tags: some players read them, nothing here writes them."""
        return ()

    def slot(self, field: Field) -> str:
        """Where ``field`` is written: in the file's own spelling, if it has the key."""
        wanted = self.slots[field][0]
        return next((key for key in self.keys() if key.lower() == wanted.lower()), wanted)

    def evidence(self) -> list[str]:
        """The keys of our own fields."""
        return [key for key in self.keys() if key.startswith(self.evidence_key)]


def open_tags(file: Path) -> TagFile:
    """The tags of ``file``, whose kind its bytes decide. Raises TagRefusedError, MutagenMissingError, OSError."""
    require_mutagen()
    try:
        kind = container(file).demuxer
    except TonestreamError as error:
        raise TagRefusedError(Refusal.NOT_TAGGABLE, error.message) from error
    opener = _OPENERS.get(kind)
    if opener is None:
        raise TagRefusedError(
            Refusal.NOT_TAGGABLE, f"tags are not written into files of this kind ({kind}), only into {_NAMED}"
        )
    with _mutagen_errors("read"):
        tags: TagFile = opener(file)
        return tags


def save_tags(tags: TagFile, file: Path) -> None:
    """Write ``tags`` into ``file``. Raises TagRefusedError, OSError."""
    with _mutagen_errors("written"):
        tags.save(file)


def drop_tags(tags: TagFile, file: Path) -> None:
    """Remove the tags from ``file``. Raises TagRefusedError, OSError."""
    with _mutagen_errors("written"):
        tags.drop(file)


def same(one: str | None, other: str | None) -> bool:
    """Whether two raw forms hold the same. How a text is encoded makes no difference."""
    return _essence(one) == _essence(other)


def _essence(raw: str | None) -> object:
    if raw is None:
        return None
    loaded = json.loads(raw)
    if isinstance(loaded, dict):
        loaded.pop("encoding", None)
    return loaded


@contextlib.contextmanager
def _mutagen_errors(what: str) -> Iterator[None]:
    """Raises TagRefusedError for what mutagen raises, and OSError where that lies behind it.

    These are not only its own errors: it trips over damaged files in many ways.
    """
    from mutagen import MutagenError

    try:
        yield
    except OSError:
        raise
    except (MutagenError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError) as error:
        if isinstance(inner := error.__cause__ or error.__context__, OSError):
            raise inner from error
        raise TagRefusedError(Refusal.DAMAGED, f"its tags cannot be {what} ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    said = "".join(sign if sign.isprintable() else " " for sign in str(error)) or type(error).__name__
    return said if len(said) <= 120 else f"{said[:117]}..."


def _says_something(value: str) -> bool:
    """Whether a value is one: players write ``0`` where they know no tempo."""
    return value.strip(" \0") not in ("", "0", "0.0", "0.00")


def _hash(content: object) -> str:
    data = content if isinstance(content, bytes) else repr(content).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


# ID3


class _Id3(TagFile):
    """ID3v2 in the version that the file has. Versions before 2.3 become 2.3, because nobody writes them."""

    evidence_key = f"TXXX:{EVIDENCE_PREFIX}"

    def __init__(self, tags: Any, created: bool, drop: Any = None) -> None:
        self._tags = tags
        self._major = _V24 if created or tags.version[1] == _V24 else _V23
        super().__init__(f"ID3v2.{self._major}", created, _ID3_24 if self._major == _V24 else _ID3_23)
        self._drop = drop or tags.delete
        if not created and tags.version[1] < _V23:
            if tags.unknown_frames:
                raise TagRefusedError(
                    Refusal.NOT_TAGGABLE, "it has ID3v2.2 frames that no newer version can hold; convert its tags first"
                )
            tags.update_to_v23()

    def keys(self) -> list[str]:
        return [str(key) for key, frame in self._tags.items() if key[0] == "T" and hasattr(frame, "text")]

    def text(self, key: str) -> tuple[str, ...]:
        frame = self._tags.get(key)
        if frame is None:
            return ()
        texts = frame.genres if key == "TCON" else frame.text
        return tuple(text for one in texts if (text := str(one)))

    def raw(self, key: str) -> str | None:
        frame = self._tags.get(key)
        if frame is None:
            return None
        return _json({"encoding": int(frame.encoding), "text": [str(text) for text in frame.text]})

    def written(self, values: Sequence[str]) -> tuple[str, ...]:
        # In ID3v2.3 a slash stands between several values.
        return tuple(values) if self._major == _V24 else ("/".join(values),)

    def put(self, key: str, values: Sequence[str]) -> None:
        texts = list(self.written(values))
        plain = all(text.isascii() for text in texts)
        encoding = 0 if plain and self._major == _V23 else 1 if self._major == _V23 else 3
        self._put(key, encoding, texts)

    def put_raw(self, key: str, raw: str) -> None:
        loaded = json.loads(raw)
        if not isinstance(loaded, dict) or not isinstance(loaded.get("text"), list):
            raise ValueError("no ID3 value")
        self._put(key, int(loaded["encoding"]), [str(text) for text in loaded["text"]])

    def _put(self, key: str, encoding: int, texts: list[str]) -> None:
        from mutagen.id3 import TXXX, Frames

        self.remove(key)
        if key.startswith("TXXX:"):
            self._tags.add(TXXX(encoding=encoding, desc=key[len("TXXX:") :], text=texts))
        else:
            self._tags.add(Frames[key](encoding=encoding, text=texts))

    def remove(self, key: str) -> None:
        # Not ``delall``: that would also remove TXXX:MOOD:odd with TXXX:MOOD.
        self._tags.pop(key, None)

    def contents(self) -> Counter[tuple[str, str]]:
        # Empty texts are not written by anybody, and the encoding of a text is not what it says.
        found = Counter(
            (str(key), _hash(_TEXT_ENCODING.sub("", repr(frame))))
            for key, frame in self._tags.items()
            if not (hasattr(frame, "text") and key[0] == "T" and not str(frame))
        )
        found.update(("unknown", _hash(bytes(frame))) for frame in self._tags.unknown_frames if len(frame) > 10)
        return found

    def save(self, file: Path) -> None:
        # Null between the values of other frames, as the file has it: a slash would change them.
        self._tags.save(file, v2_version=self._major, v23_sep=None)

    def drop(self, file: Path) -> None:
        self._drop(file)


class _Id3AtTheFront(_Id3):
    """MP3: the tags stand before the audio, and nothing behind them may change."""

    def __init__(self, tags: Any, created: bool) -> None:
        super().__init__(tags, created, lambda file: tags.delete(file, delete_v1=False))

    def save(self, file: Path) -> None:
        behind, tail = _tail(file)
        super().save(file)
        # mutagen also writes the old ID3v1 tag again, from what it knows: put back what was there.
        now, _ = _tail(file)
        start = file.stat().st_size - now
        with file.open("r+b") as opened:
            opened.truncate(start + behind)
            opened.seek(start + behind - len(tail))
            opened.write(tail)


def _tail(file: Path) -> tuple[int, bytes]:
    """How many bytes stand behind the leading ID3 tag, and the last of them."""
    with file.open("rb") as opened:
        head = opened.read(10)
        # The length is stored in seven bits per byte.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        start = 10 + size if head[:3] == b"ID3" else 0
        behind = max(opened.seek(0, 2) - start, 0)
        opened.seek(-min(_TAIL, behind), 2)
        return behind, opened.read()


def _open_id3(file: Path) -> TagFile:
    from mutagen.id3 import ID3, ID3NoHeaderError

    try:
        return _Id3AtTheFront(ID3(file, translate=False, load_v1=False), created=False)
    except ID3NoHeaderError:
        pass
    try:
        # Only an old ID3v1 tag: players stop reading it where there is ID3v2, so what it says is carried over.
        return _Id3AtTheFront(ID3(file), created=True)
    except ID3NoHeaderError:
        return _Id3AtTheFront(ID3(), created=True)


class _Wave(_Id3):
    """WAV may also have an older kind of tags, a list of texts (RIFF INFO)."""

    def __init__(self, tags: Any, created: bool, genre: str) -> None:
        super().__init__(tags, created)
        self._genre = genre

    def elsewhere(self, field: Field) -> tuple[str, ...]:
        return (self._genre,) if field is Field.GENRE and self._genre else ()


def _open_wave(file: Path) -> TagFile:
    from mutagen.wave import WAVE

    opened = WAVE(file, translate=False)
    created = opened.tags is None
    if created:
        opened.add_tags()
    return _Wave(opened.tags, created, _riff_genre(file))


def _riff_genre(file: Path) -> str:
    """The genre (IGNR) in the RIFF INFO list of a WAV file; empty if there is none."""
    with file.open("rb") as opened:
        opened.seek(12)
        while len(head := opened.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"LIST" and opened.read(4) == b"INFO":
                texts = opened.read(min(size - 4, _LONGEST_INFO)) if size > 4 else b""
                return _info_text(texts, b"IGNR")
            opened.seek(size + size % 2 - (4 if head[:4] == b"LIST" else 0), 1)
    return ""


def _info_text(texts: bytes, name: bytes) -> str:
    at = 0
    while at + 8 <= len(texts):
        size = int.from_bytes(texts[at + 4 : at + 8], "little")
        if texts[at : at + 4] == name:
            return texts[at + 8 : at + 8 + size].split(b"\0")[0].decode("utf-8", "replace").strip()
        at += 8 + size + size % 2
    return ""


def _open_aiff(file: Path) -> TagFile:
    from mutagen.aiff import AIFF

    opened = AIFF(file, translate=False)
    created = opened.tags is None
    if created:
        opened.add_tags()
    return _Id3(opened.tags, created)


# Vorbis comments


class _Vorbis(TagFile):
    def __init__(self, file: Any) -> None:
        created = file.tags is None
        if created:
            file.add_tags()
        self._file = file
        super().__init__("Vorbis comments", created, _VORBIS)

    def keys(self) -> list[str]:
        return list(dict.fromkeys(key.upper() for key, _ in self._file.tags))

    def text(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self._file.tags if name.upper() == key.upper() and value)

    def raw(self, key: str) -> str | None:
        found = [[name, value] for name, value in self._file.tags if name.upper() == key.upper()]
        return _json(found) if found else None

    def put(self, key: str, values: Sequence[str]) -> None:
        self._put(key, [(key, value) for value in values])

    def put_raw(self, key: str, raw: str) -> None:
        self._put(key, [(str(name), str(value)) for name, value in json.loads(raw)])

    def _put(self, key: str, pairs: list[tuple[str, str]]) -> None:
        tags = self._file.tags
        places = [number for number, (name, _) in enumerate(tags) if name.upper() == key.upper()]
        rest = [pair for pair in tags if pair[0].upper() != key.upper()]
        at = places[0] if places else len(rest)
        tags[:] = rest[:at] + pairs + rest[at:]

    def remove(self, key: str) -> None:
        self._put(key, [])

    def contents(self) -> Counter[tuple[str, str]]:
        found = Counter((name.upper(), _hash(value)) for name, value in self._file.tags)
        found[("vendor", _hash(self._file.tags.vendor))] += 1
        for block in getattr(self._file, "metadata_blocks", ()):
            if block is not self._file.tags and block.code != 1:  # 1: padding
                found[(f"block {block.code}", _hash(bytes(block.write())))] += 1
        return found

    def save(self, file: Path) -> None:
        self._file.save(file)

    def drop(self, file: Path) -> None:
        self._file.delete(file)


def _open_flac(file: Path) -> TagFile:
    from mutagen.flac import FLAC

    return _Vorbis(FLAC(file))


def _open_ogg(file: Path) -> TagFile:
    from mutagen import File
    from mutagen.oggflac import OggFLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggspeex import OggSpeex
    from mutagen.oggvorbis import OggVorbis

    opened = File(file, options=[OggVorbis, OggOpus, OggFLAC, OggSpeex])
    if opened is None:
        raise TagRefusedError(Refusal.NOT_TAGGABLE, "it is an Ogg file without a stream whose comments are known")
    return _Vorbis(opened)


# MP4


class _Mp4(TagFile):
    evidence_key = f"{_ITUNES}{EVIDENCE_PREFIX}"

    def __init__(self, file: Any) -> None:
        created = file.tags is None
        if created:
            file.add_tags()
        self._file = file
        super().__init__("MP4", created, _MP4)

    def keys(self) -> list[str]:
        return [key for key in self._file.tags if key in ("\xa9gen", "tmpo") or key.startswith(_ITUNES)]

    def text(self, key: str) -> tuple[str, ...]:
        values = self._file.tags.get(key, [])
        texts = (one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values)
        return tuple(text for text in texts if text)

    def raw(self, key: str) -> str | None:
        from mutagen.mp4 import MP4FreeForm

        values = self._file.tags.get(key)
        if values is None:
            return None
        return _json(
            [
                {"hex": one.hex(), "format": int(one.dataformat), "version": int(one.version)}
                if isinstance(one, MP4FreeForm)
                else one
                for one in values
            ]
        )

    def put(self, key: str, values: Sequence[str]) -> None:
        from mutagen.mp4 import MP4FreeForm

        if key == "tmpo":
            self._file.tags[key] = [int(value) for value in values]
        elif key.startswith("----"):
            self._file.tags[key] = [MP4FreeForm(value.encode("utf-8")) for value in values]
        else:
            self._file.tags[key] = list(values)

    def put_raw(self, key: str, raw: str) -> None:
        from mutagen.mp4 import MP4FreeForm

        values: list[Any] = []
        for one in json.loads(raw):
            if isinstance(one, dict):
                data = bytes.fromhex(str(one["hex"]))
                values.append(MP4FreeForm(data, int(one["format"]), int(one["version"])))
            else:
                values.append(one)
        self._file.tags[key] = values

    def remove(self, key: str) -> None:
        self._file.tags.pop(key, None)

    def contents(self) -> Counter[tuple[str, str]]:
        return Counter((str(key), _hash(repr(value))) for key, value in self._file.tags.items())

    def save(self, file: Path) -> None:
        self._file.save(file)

    def drop(self, file: Path) -> None:
        self._file.delete(file)


def _open_mp4(file: Path) -> TagFile:
    from mutagen.mp4 import MP4

    return _Mp4(MP4(file))


# APEv2


class _Ape(TagFile):
    def __init__(self, file: Any) -> None:
        created = file.tags is None
        if created:
            file.add_tags()
        self._file = file
        super().__init__("APEv2", created, _APE)

    def keys(self) -> list[str]:
        return [str(key) for key, value in self._file.tags.items() if value.kind == 0]  # 0: text

    def text(self, key: str) -> tuple[str, ...]:
        value = self._file.tags.get(key)
        return () if value is None else tuple(text for text in value if text)

    def raw(self, key: str) -> str | None:
        value = self._file.tags.get(key)
        return None if value is None else _json(list(value))

    def put(self, key: str, values: Sequence[str]) -> None:
        self._file.tags[key] = list(values)

    def put_raw(self, key: str, raw: str) -> None:
        self._file.tags[key] = [str(value) for value in json.loads(raw)]

    def remove(self, key: str) -> None:
        if key in self._file.tags:
            del self._file.tags[key]

    def contents(self) -> Counter[tuple[str, str]]:
        return Counter((str(key).lower(), _hash(value.value)) for key, value in self._file.tags.items())

    def save(self, file: Path) -> None:
        self._file.save(file)

    def drop(self, file: Path) -> None:
        self._file.delete(file)


def _open_wavpack(file: Path) -> TagFile:
    from mutagen.wavpack import WavPack

    return _Ape(WavPack(file))


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=True, sort_keys=True)


#: By ffmpeg's demuxer, as ``shared.audio.containers`` names the kinds of files.
_OPENERS: Final[Mapping[str, Any]] = {
    "mp3": _open_id3,
    "wav": _open_wave,
    "aiff": _open_aiff,
    "flac": _open_flac,
    "ogg": _open_ogg,
    "mov": _open_mp4,
    "wv": _open_wavpack,
}
