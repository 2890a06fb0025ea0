"""Model cards, written from the manifest alone, so that card and manifest never disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.audio.spec import FeatureSpec
from shared.contracts.labels import MOODS
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
    spec = manifest.require_feature_spec()
    return f"""# {manifest.model_id}
Tells which of ten genres a 3-second segment is: {", ".join(manifest.labels)}. The answer for a track is put together
from its segments by the aggregator.

Two layers of LSTM(64) over the frames, Dense(64, ReLU), Dropout(0.3), one logit a genre. Input:
{_described(spec)}, each standardised by the network's first layer.

## Data and split
GTZAN (Tzanetakis and Cook 2002): {f["clips"]} clips of 30 s by {f["groups"]} artists, {f["segments"]} segments.
{f["folds"]}-fold cross-validation; no artist is ever in both training and test, for songs of a known artist are told far
too easily. The folds chose the number of epochs ({f["epochs"]}) too, so the figures are a little too good. The shipped
weights were then trained on all clips.

## Figures
On held-out artists. {_INTERVAL_NOTE} Chance is about 0.1.

{_table(("what", "figure"), (
    ("accuracy, tracks (mean of the segments' probabilities)", _interval(f["track_accuracy"])),
    ("accuracy, segments", _interval(f["segment_accuracy"])),
    ("calibration error, segments: before, after the temperature", f'{f["segment_ece_before"]}, {f["segment_ece_after"]}'),
    ("calibration error, tracks: before, after", f'{f["track_ece_before"]}, {f["track_ece_after"]}'),
))}

Recall of tracks: {", ".join(f"{genre} {_number(share)}" for genre, share in f["recall"].items())}.

Tracks, truth in rows, answers in columns:

{_table(("", *manifest.labels), [(label, *row) for label, row in zip(manifest.labels, f["confusion"], strict=True)])}

## Bandwidth
{f["narrow_clips"]} of the clips exist only at 16 kHz: nothing sounds above 8 kHz in them, and they are spread unevenly
over the genres. So that this is no cue, half of the segments of each epoch lose everything above 8 kHz. Held-out
accuracy with all clips cut at 8 kHz: {_interval(f["track_accuracy_limited_bandwidth"])}; share of tracks that keep their
answer: {_number(f["same_answer_in_limited_bandwidth"])}. Accuracy of the 16 kHz clips:
{_number(f["track_accuracy_of_narrow_clips"])}, of the others: {_number(f["track_accuracy_of_wide_clips"])}.

## Calibration
Temperature {manifest.temperature:g}, fitted to the held-out segments (Guo et al. 2017). The errors "after" were measured
with the temperature fitted on the other folds. With {f["clips"]} tracks even a perfectly calibrated model shows an error
of several hundredths. The mean over segments is less sure than it might be: segments of one track agree in their errors.

## Limits
- A seed to build on: more than half of its answers are wrong. Read the confidence.
- Few artists: for blues, classical, reggae and rock most clips are by one artist, so their recall says little.
- GTZAN is Western music of the 20th century, with known mislabellings (Sturm 2013). Everything else is called one of
  the ten as well: there is no "none of these".
{_ending(manifest, "GTZAN's recordings belong to their owners; the set is for research.")}"""


def mood_card(manifest: ModelManifest) -> str:
    """The card of a mood model, Markdown."""
    f = manifest.figures
    listeners = [
        (row["mood"], row["emotion"], _interval(row["correlation"])) for row in f.get("listeners", [])
    ]
    return f"""# {manifest.model_id}
Tells which of four moods a track has ({", ".join(manifest.labels)}) from ten audio features: Spotify's, or the same ten
measured from the audio.

One hidden layer of {f["hidden"]} units (ReLU, dropout) over the ten standardised features. The manifest holds a scaler for
each source of features.

## Data and split
{f["tracks"]} Spotify tracks by {f["groups"]} artists with Spotify's features and a mood, from two labellers.
{f["folds"]}-fold cross-validation by artist over both. The shipped weights were trained on all of them.

## Figures, Spotify's features
On held-out artists. {_INTERVAL_NOTE}

{_table(("tracks", "number", "accuracy"), [
    (source, row["tracks"], _interval(row["accuracy"])) for source, row in f["accuracy"].items()
])}

Without duration, all tracks: {_interval(f["accuracy_without_duration"])}.

Recall: {", ".join(f"{mood} {_number(share)}" for mood, share in f["recall"].items())}. Calibration error before and after
the temperature ({manifest.temperature:g}): {f["ece_before"]}, {f["ece_after"]}.

Truth in rows, answers in columns:

{_table(("", *manifest.labels), [(label, *row) for label, row in zip(manifest.labels, f["confusion"], strict=True)])}

The labellers do not mean the same by calm: for one it is nearly always piano without voice, for the other it holds quiet
songs too.

## Figures, measured features
There is no music here of which both the audio and a mood label are known, so the model cannot be trained or scored on
measured features. Instead, mean and deviation of each measured feature over {f["reference_clips"]} reference recordings are
matched to those of Spotify's features over the training tracks (tempo, the same thing on both sides, keeps Spotify's
scaler). Duration is ignored: a file may be a preview or an excerpt, and in training half of the copies lack it. This takes the reference music and the training tracks for alike, which is roughly true at
best, and it takes an estimate for the thing: the measured valence is hardly Spotify's.

{_listeners(f, listeners)}
## Limits
- Spotify closed its features to new apps in November 2024: most users get the measured ones, and those answers are weak.
- Moods of a track are a matter of taste; the labels are the view of two labellers.
- The probabilities were calibrated on Spotify's features. On measured ones they are surer than they should be.
{_ending(manifest, "The tables of features and labels and the reference recordings are for research and are not part of"
  " this repository.")}"""


def _listeners(f: dict[str, Any], rows: Sequence[tuple[str, str, str]]) -> str:
    if not rows:
        return "The answers from audio were not checked against listeners.\n"
    return f"""Against listeners ({f["listener_clips"]} one-minute clips of the Emotify set, Aljanaki, Wiering and Veltkamp
2016; share of listeners who felt an emotion), Spearman's rank correlation with the model's probability:

{_table(("probability of", "listeners who felt", "correlation"), rows)}

Shares of the answers on these clips: {", ".join(f"{mood} {f['listener_answers'][mood]:.2f}" for mood in MOODS)}.
The clips are among the reference recordings, whose labels the matching does not use.
"""


def _ending(manifest: ModelManifest, notice: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""
## Licence and notices
The weights are trained on data for research use; use them likewise. {notice}

## Command
    {manifest.command}

{versions}. {manifest.figures["training_s"]} s of training. Weights `{manifest.weights}`, SHA-256 `{manifest.sha256}`.
"""


def _described(spec: FeatureSpec) -> str:
    return f"{spec.frames} frames of {spec.n_mfcc} MFCCs from {spec.segment_s:g} s at {spec.sample_rate} Hz (`{spec.id}`)"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
