"""Model cards, written from the manifest alone, so that card and manifest never disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.audio.spec import FeatureSpec
from shared.models import ModelManifest

_CARD: Final = "CARD.md"
_INTERVAL_NOTE: Final = "Brackets are 95% intervals by bootstrap over artists."


def write_card(folder: Path, manifest: ModelManifest) -> Path:
    """Write ``CARD.md`` for ``manifest`` into ``folder``; returns its path."""
    text = genre_card(manifest) if manifest.kind == "genre" else mood_card(manifest)
    card = folder / _CARD
    card.write_text(text, encoding="utf-8")
    return card


def genre_card(manifest: ModelManifest) -> str:
    """The card of a genre model, Markdown."""
    f = manifest.figures
    scores = _table(
        ("what", "figure"),
        (
            ("accuracy, tracks (mean of the segments' probabilities)", _interval(f["track_accuracy"])),
            ("accuracy, segments", _interval(f["segment_accuracy"])),
            ("calibration error, segments, before and after", f"{f['segment_ece_before']}, {f['segment_ece_after']}"),
            ("calibration error, tracks, before and after", f"{f['track_ece_before']}, {f['track_ece_after']}"),
        ),
    )
    return f"""# {manifest.model_id}
Tells which of ten genres a segment of 3 s is: {", ".join(manifest.labels)}.
The answer for a track is put together from its segments by the aggregator.

Two layers of LSTM(64) over the frames, Dense(64, ReLU), Dropout(0.3), one logit a genre. Input:
{_described(manifest.require_feature_spec())}, each coefficient standardised by the network's first layer.

## Data and split
GTZAN (Tzanetakis and Cook 2002): {f["clips"]} clips of 30 s by {f["groups"]} artists, {f["segments"]} segments.
{f["folds"]}-fold cross-validation; no artist is ever in both training and test, for songs of a known artist are told
far too easily. The training settings were chosen among a handful on the same folds, which flatters the figures a
little; another run with other random numbers may differ by 4 points. The shipped weights were then trained on all
clips, for {f["epochs"]} epochs as in the folds.

## Figures
On held-out artists. {_INTERVAL_NOTE} Chance is about 0.1.

{scores}

Recall of tracks: {_shares(f["recall"])}.

Tracks, truth in rows, answers in columns:

{_confusion(manifest)}

## Bandwidth
{f["narrow_clips"]} of the clips exist only at 16 kHz: nothing sounds above 8 kHz in them, and they are spread unevenly
over the genres. So that this is no cue, half of the segments of each epoch lose everything above 8 kHz. Held-out
accuracy with all clips cut at 8 kHz: {_interval(f["track_accuracy_limited_bandwidth"])}; tracks that keep their answer:
{_number(f["same_answer_in_limited_bandwidth"])}. Accuracy of the 16 kHz clips:
{_number(f["track_accuracy_of_narrow_clips"])}, of the others: {_number(f["track_accuracy_of_wide_clips"])}.

## Calibration
Temperature {manifest.temperature:g}, fitted to the held-out segments (Guo et al. 2017). The errors "after" were
measured with the temperature fitted on the other folds. With {f["clips"]} tracks even a perfectly calibrated model
shows an error of up to 0.1.

## Limits
- A seed to build on: more than half of its answers are wrong. Read the confidence.
- Few artists: of blues, classical, reggae and rock most clips are by one artist, so their recall says little.
- GTZAN is Western music of the 20th century, with known mislabellings (Sturm 2013). Everything else is called one of
  the ten as well: there is no "none of these".
{_ending(manifest, "GTZAN's recordings belong to their owners; the set is for research.")}"""


def mood_card(manifest: ModelManifest) -> str:
    """The card of a mood model, Markdown."""
    f = manifest.figures
    scores = _table(
        ("tracks", "number", "accuracy"),
        [(source, row["tracks"], _interval(row["accuracy"])) for source, row in f["accuracy"].items()],
    )
    return f"""# {manifest.model_id}
Tells which of four moods a track has ({", ".join(manifest.labels)}) from ten audio features: Spotify's, or the same ten
measured from the audio.

One hidden layer of {f["hidden"]} units (ReLU, dropout) over the ten standardised features. The manifest holds a scaler
for each source of features.

## Data and split
{f["tracks"]} Spotify tracks by {f["groups"]} artists with Spotify's features and a mood, from two labellers.
{f["folds"]}-fold cross-validation by artist over both. The shipped weights were trained on all of them.

## Figures, Spotify's features
On held-out artists. {_INTERVAL_NOTE}

{scores}

Without duration, all tracks: {_interval(f["accuracy_without_duration"])}.

Recall: {_shares(f["recall"])}. Calibration error before and after the temperature ({manifest.temperature:g}):
{f["ece_before"]}, {f["ece_after"]}.

Truth in rows, answers in columns:

{_confusion(manifest)}

The labellers do not mean the same by calm: for one it is nearly always piano without voice, for the other it holds
quiet songs too.

## Figures, measured features
There is no music here of which both the audio and a mood label are known, so the model cannot be trained or scored on
measured features. Instead, mean and deviation of each measured feature over {f["reference_clips"]} reference
recordings are matched to those of Spotify's features over the training tracks; tempo, the same thing on both sides,
keeps Spotify's scaler. Duration is ignored: a file may be a preview or an excerpt, and in training half of the copies
lack it. This takes the reference music and the training tracks for alike, which is roughly true at best, and it takes
an estimate for the thing: the measured valence is hardly Spotify's.

{_listeners(f)}
## Limits
- Spotify closed its features to new apps in November 2024: most users get the measured ones, and their moods are weak.
- Moods of a track are a matter of taste; the labels are the view of two labellers.
- The probabilities were calibrated on Spotify's features. On measured ones they are surer than they should be.
{_ending(manifest, "The tables and the reference recordings are for research and no part of this repository.")}"""


def _listeners(f: dict[str, Any]) -> str:
    if "listeners" not in f:
        return "The answers from audio were not checked against listeners.\n"
    rows = [(row["mood"], row["emotion"].replace("_", " "), _interval(row["correlation"])) for row in f["listeners"]]
    return f"""Against listeners ({f["listener_clips"]} clips of a minute of the Emotify set, Aljanaki, Wiering and
Veltkamp 2016; share of listeners who felt an emotion), Spearman's rank correlation with the model's probability:

{_table(("probability of", "listeners who felt", "correlation"), rows)}

Shares of the answers on these clips: {_shares(f["listener_answers"])}.
The clips are among the reference recordings; the matching does not use what their listeners felt.
"""


def _ending(manifest: ModelManifest, notice: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""
## Licence and notices
The weights are trained on data for research use; use them likewise.
{notice}

## Command
    {manifest.command}

{versions}. {manifest.figures["training_s"]} s. Weights `{manifest.weights}`, SHA-256 `{manifest.sha256}`.
"""


def _described(spec: FeatureSpec) -> str:
    return (
        f"{spec.frames} frames of {spec.n_mfcc} MFCCs from {spec.segment_s:g} s at {spec.sample_rate} Hz (`{spec.id}`)"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _confusion(manifest: ModelManifest) -> str:
    rows = zip(manifest.labels, manifest.figures["confusion"], strict=True)
    return _table(("", *manifest.labels), [(label, *row) for label, row in rows])


def _shares(shares: dict[str, float | None]) -> str:
    return ", ".join(f"{label} {_number(share)}" for label, share in shares.items())


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
