"""The package as a stranger gets it: built from an archive of the sources, installed beside no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.samples import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archive of the sources, and with the wheel that was built from that archive."""
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "sources" / name)
    # Without isolation: what the build needs is installed, and no index is asked.
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(folder / "sources"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. Its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*install, str(wheel)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    # Folders on this list come last, and the links in them to checkouts are not followed.
    own = [sysconfig.get_path("purelib"), *(one for one in sys.path if one.endswith("site-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(dict.fromkeys(own)) + "\n", encoding="utf-8")
    return folder


def run(environment: Path, *command: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TONESTREAM_", "PYTHON"))}
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=environment, env=clean, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_archives_hold_the_models_the_page_and_the_terms_and_neither_tests_nor_pictures(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sources,) = built.glob("*.tar.gz")
    assert wheel.name == f"tonestream-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    for model in (folder for folder in (ROOT / "models").iterdir() if folder.is_dir()):
        for file in ("manifest.json", "model.onnx", "model.keras", "CARD.md"):
            assert f"tonestream/models/{model.name}/{file}" in names
    assert {"tonestream/models/LICENSE.md", "tonestream/models/MUSICNN-LICENSE.md"} <= names
    pages = {
        file.relative_to(ROOT).as_posix() for file in (ROOT / "services/gateway/page").rglob("*") if file.is_file()
    }
    assert pages <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"shared", "services", "training", "tonestream", f"tonestream-{VERSION}.dist-info"}
    assert not [name for name in names if name.endswith((".png", ".pyc")) or "/tests/" in name]
    with tarfile.open(sources) as archive:
        assert {f"tonestream-{VERSION}/models/{name}" for name in ("LICENSE.md", "mood-ten/model.onnx")} <= set(
            archive.getnames()
        )


def test_the_installed_command_knows_its_version_and_classifies(installed: Path) -> None:
    where = run(installed, "python", "-c", "import shared, services; print(shared.__path__[0], services.__path__[0])")
    assert all(one.startswith(str(installed)) for one in where.split()), "not the checkout"
    assert run(installed, "tonestream", "--version") == f"tonestream {VERSION}\n"
    said = json.loads(run(installed, "tonestream", "version"))
    assert said["tonestream"] == VERSION and said["models"]["genre"].startswith("musicnn-lstm")
    sample = str(ROOT / "samples" / "golden-valley.mp3")
    (line,) = run(installed, "tonestream", "classify", "--json", sample).splitlines()
    assert json.loads(line)["status"] == "ok"


def test_the_installed_gateway_has_its_page(installed: Path) -> None:
    script = "from services.gateway import static_page; from pathlib import Path; print((Path(static_page.__file__).parent / 'page' / 'index.html').stat().st_size)"  # noqa: E501
    assert int(run(installed, "python", "-c", script)) > 0
