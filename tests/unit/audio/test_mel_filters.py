"""The packaged filter banks are librosa's, and all that the packaged models need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest

from shared.audio.segment_features.mel_filters import PACKAGED, FilterBank, mel_basis, mel_product
from shared.models.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_LIBROSA = "import sys; sys.modules['librosa'] = sys.modules['numba'] = sys.modules['sklearn'] = None; "


@pytest.mark.parametrize("bank", PACKAGED, ids=str)
def test_a_packaged_bank_is_the_one_librosa_computes(bank: FilterBank) -> None:
    expected = librosa.filters.mel(sr=bank.sample_rate, n_fft=bank.n_fft, n_mels=bank.n_mels).T
    found = mel_basis(*bank)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert not found.flags.writeable


@pytest.mark.parametrize("bank", [*PACKAGED, FilterBank(22050, 512, 40)], ids=str)
def test_the_product_by_blocks_is_that_of_the_whole_bank(bank: FilterBank) -> None:
    power = np.random.default_rng(1).random((50, bank.n_fft // 2 + 1)).astype(np.float32) ** 8
    np.testing.assert_allclose(mel_product(*bank)(power), power @ mel_basis(*bank), rtol=1e-5, atol=1e-12)


def test_every_packaged_model_listens_through_a_packaged_bank() -> None:
    specs = [
        load_manifest(folder).require_feature_spec()
        for folder in sorted((ROOT / "models").iterdir())
        if folder.is_dir() and json.loads((folder / "manifest.json").read_text())["kind"] != "mood"
    ]
    assert specs
    for spec in specs:
        assert FilterBank(spec.analysis_rate or spec.sample_rate, spec.n_fft, spec.n_mels) in PACKAGED, spec.id


def run_without_librosa(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_LIBROSA + script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_features_and_measures_need_no_librosa() -> None:
    script = (
        "import numpy as np\n"
        "from shared.audio.segment_features.extraction import segment_features\n"
        "from shared.audio.track_features.measures import measure\n"
        "from shared.audio.spec import LOG_MEL96, MFCC40\n"
        "noise = np.random.default_rng(1).standard_normal((1, 66150)).astype(np.float32) * 0.1\n"
        "shapes = [segment_features(noise, spec).shape for spec in (MFCC40, LOG_MEL96)]\n"
        "print(*shapes, measure(noise[0]).tempo >= 0)"
    )
    done = run_without_librosa(script)
    assert (done.stdout, done.stderr) == ("(1, 130, 40) (1, 188, 96) True\n", "")


def test_another_bank_is_said_to_need_librosa() -> None:
    module = "shared.audio.segment_features.mel_filters"
    done = run_without_librosa(f"from {module} import mel_basis; mel_basis(22050, 2048, 40)")
    assert "40 mel bands of 2048 samples at 22050 Hz, for which librosa is needed: pip install librosa" in done.stderr
