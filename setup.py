"""What pyproject.toml cannot say: the shipped models go into the wheel, so that it works without the repository.

Images copy `models/` themselves, and build their wheel without this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODELS = Path(__file__).resolve().parent / "models"


class BuildWithModels(build_py):
    """Copies the networks with their manifests, cards and terms to `tonestream/models`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "tonestream" / "models"
            shutil.copytree(MODELS, target, ignore=shutil.ignore_patterns("*.png"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModels})
