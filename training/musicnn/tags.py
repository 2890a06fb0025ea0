"""Make the tag model: ``python -m training.musicnn.tags --out models/music-tags [--checkpoint DIR]``.

Nothing is trained: this loads the published weights of musicnn into our own graph of the network.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Final

from shared.audio.spec import LOG_MEL96
from shared.models.manifest import ModelManifest, write_manifest
from training.export import export_onnx
from training.musicnn.network import MSD_TAGS, read_variables, tagger
from training.musicnn.weights import fetch_checkpoint
from training.reports.figures import TagFigures
from training.tensorflow_setup import prepare

_WEIGHTS: Final = "model.keras"
_NOTICES: Final = (
    "Weights of musicnn, copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019, by Jordi Pons, under the "
    "ISC licence: see ../MUSICNN-LICENSE.md, which must go along with them."
)


def make_tag_model(checkpoint: Path, folder: Path, versions: dict[str, str], command: str) -> ModelManifest:
    """Write the model folder of musicnn's tagger, with its manifest and card.

    ``checkpoint`` is a folder as `fetch_checkpoint` gives it, trained on the Million Song Dataset. Raises
    tf.errors.OpError if it holds no checkpoint, KeyError if it is that of another network.
    """
    network = tagger(read_variables(checkpoint), LOG_MEL96.frames)
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder / _WEIGHTS)
    manifest = write_manifest(
        folder,
        folder.name,
        kind="tags",
        labels=MSD_TAGS,
        feature_spec=LOG_MEL96,
        temperature=1.0,
        weights=_WEIGHTS,
        onnx=export_onnx(network, folder),
        versions=versions,
        command=command,
        figures={"notices": _NOTICES, "parameters": int(network.count_params())},
    )
    (folder / "CARD.md").write_text(tag_card(manifest), encoding="utf-8")
    return manifest


def tag_card(manifest: ModelManifest) -> str:
    """The card of the tag model, Markdown."""
    figures = TagFigures.model_validate(manifest.figures)
    spec = manifest.require_feature_spec()
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""# {manifest.model_id}
Tells how far each of {len(manifest.labels)} tags, which listeners of Last.fm gave to songs, fits a segment of
{spec.segment_s:g} s: {", ".join(manifest.labels)}.

The mood worker measures with it what signal processing alone does not hear: voices, acoustic instruments, parties.
The embedding below the tags, 200 numbers, is what genre models learn from.

## What it is
musicnn by Jordi Pons and Xavier Serra ("musicnn: pre-trained convolutional neural networks for music audio tagging",
late-breaking demo of ISMIR 2019), as they published it: {figures.parameters:,} parameters, trained on some
200,000 songs of the Million Song Dataset. Nothing of it was trained again. The graph is written anew in Keras
(`training/musicnn/network.py`), since the published code does not run on today's TensorFlow.

Input: {spec.frames} frames of {spec.coefficients} mel bands from {spec.segment_s:g} s at {spec.analysis_rate} Hz
(`{spec.id}`). The published network was trained on 187 frames; it takes any number.

## Figures
Its authors report an area under the ROC curve of 0.880 and under the precision-recall curve of 0.289, mean over the
tags, on held-out songs of the Million Song Dataset. Not measured again here.

## Limits
- The tags are those of Last.fm's listeners before 2011: mostly Western popular music. There is none for classical
  music, for speech or for noise.
- A probability stays low for a rare tag even where it fits. Compare a tag between
  songs, not two tags of one song.

## Licence and notices
{figures.notices}

## Command
    {manifest.command}

{versions}. Weights `{manifest.weights}`, SHA-256 `{manifest.sha256}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.musicnn.tags", description="Make the tag model.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--checkpoint", type=Path, help="unpacked checkpoint; default: fetched with pip")
    parser.add_argument("--cache", type=Path, default=Path(".cache/musicnn"), help="where what is fetched stays")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    versions = prepare(seed=1, threads=arguments.threads)
    checkpoint = arguments.checkpoint or fetch_checkpoint("MSD", arguments.cache)
    command = shlex.join(["python", "-m", "training.musicnn.tags", *sys.argv[1:]])
    print(make_tag_model(checkpoint, arguments.out, versions, command).model_id)


if __name__ == "__main__":
    main()
