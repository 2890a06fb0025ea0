"""The models and the engine that runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from services.cli.doctor.finding import Finding, fail, ok, warn
from shared.models.engine import load_engine
from shared.models.manifest import MANIFEST, ModelError, ModelManifest, load_manifest
from shared.settings import Settings

_RESTORE: Final = "restore the folder from the release, or name another model in its setting"
_ENGINES: Final = ("onnxruntime", "tensorflow")


def models(settings: Settings) -> Iterator[Finding]:
    """Are the configured models whole, by the hashes in their manifests? And the others that are installed?"""
    configured = {
        "genre": settings.genre_model,
        "mood": settings.mood_model,
        "tags": settings.tag_model,
    }
    for kind, name in configured.items():
        try:
            manifest = _whole(settings.models_dir / name)
        except (ModelError, OSError) as error:
            yield fail("models", f"{kind}: {error}", f"{_RESTORE} (TONESTREAM_{_setting(kind)})")
            continue
        yield ok("models", f"{kind}: {manifest.model_id}, whole")
    folder = settings.models_dir
    others = sorted(one for one in folder.iterdir() if (one / MANIFEST).is_file()) if folder.is_dir() else []
    for other in others:
        if other.name not in configured.values():
            try:
                _whole(other)
            except (ModelError, OSError) as error:
                yield warn("models", f"{error}", "restore that folder, or remove it")


def engine(settings: Settings) -> Iterator[Finding]:
    """Is there an engine, and does it load the genre model?"""
    installed = [f"{name} {found}" for name in _ENGINES if (found := _version(name)) is not None]
    try:
        folder = settings.models_dir / settings.genre_model
        load_engine(settings.engine, folder, load_manifest(folder), threads=1)
    except ModelError as error:
        yield fail("engine", str(error), 'pip install "tonestream[laptop]" installs ONNX Runtime')
    except Exception as error:
        # A broken installation of an engine may raise anything when it is imported.
        yield fail(
            "engine", f"cannot load the genre model: {error}", 'install it again: pip install "tonestream[laptop]"'
        )
    else:
        yield ok("engine", f"loads {settings.genre_model}; installed: {', '.join(installed)}")


def _whole(folder: Path) -> ModelManifest:
    """The manifest of a model whose files have the hashes in it. Raises ModelError, OSError."""
    manifest = load_manifest(folder)  # checks the weights
    if manifest.onnx is not None:
        found = hashlib.sha256((folder / manifest.onnx.file).read_bytes()).hexdigest()
        if found != manifest.onnx.sha256:
            raise ModelError(f"{folder / manifest.onnx.file} is damaged, or belongs to another manifest")
    return manifest


def _setting(kind: str) -> str:
    return {"genre": "GENRE_MODEL", "mood": "MOOD_MODEL", "tags": "TAG_MODEL"}[kind]


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
