"""Model cards, written from the manifest alone, so that card and manifest never disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.audio.spec import FeatureSpec
from shared.contracts.labels import GENRES, MOODS
from shared.models import ModelManifest

_CARD: Final = "CARD.md"
_INTERVAL_NOTE: Final = "Brackets are 95% intervals by bootstrap over artists."
_LEVELS: Final = ("track", "segment")
_WEAK_RECALL: Final = 0.5
_FEW_ARTISTS: Final = 3


def write_card(folder: Path, manifest: ModelManifest) -> Path:
    """Write ``CARD.md`` for ``manifest`` into ``folder``; returns its path."""
    text = genre_card(manifest) if manifest.kind == "genre" else mood_card(manifest)
    card = folder / _CARD
    card.write_text(text, encoding="utf-8")
    return card


def genre_card(manifest: ModelManifest) -> str:
    """The card of a genre model, Markdown."""
    f = manifest.figures
    notes = ", ".join(_note(name, value) for name, value in f["notes"].items())
    rights = "The recordings belong to their owners and are no part of this repository."
    return f"""# {manifest.model_id}
Tells which of ten genres a segment of 3 s is: {", ".join(manifest.labels)}.
The answer for a track is put together from its segments by the aggregator.

{f["description"]}

Recipe `{f["recipe"]}`{f" ({notes})" if notes else ""}. Input: {_described(manifest.require_feature_spec())}.
The figures are of models trained in the same way on a part of the clips and judged on the rest. The shipped weights
were then trained on all {len(f["trained_on"])} clips.

{genre_report(f, manifest.temperature, manifest.track_temperature)}
## Plots
![confusion](confusion.png)
![reliability](reliability.png)

## Limits
- Music of another kind than the ten genres is called one of them as well: there is no "none of these".
{_weak_genres(f)}
{_ending(manifest, " ".join(part for part in (f["notices"], rights) if part))}"""


def _note(name: str, value: Any) -> str:
    """A figure of the recipe's own; those of a group are listed."""
    if isinstance(value, dict):
        value = "; ".join(_note(inner, one) for inner, one in value.items())
    return f"{name.replace('_', ' ')} {value}"


def genre_report(f: dict[str, Any], temperature: float, track_temperature: float) -> str:
    """The figures of a genre model (`training.genre_figures`) and its two temperatures, Markdown."""
    leaky = f.get("leaky")
    rows = [
        ("accuracy, tracks", _interval(f["track_accuracy"])),
        ("accuracy, segments", _interval(f["segment_accuracy"])),
    ]
    if leaky:
        rows.append(("LEAKY: segments, random split by segment", _interval(leaky["segment_accuracy"])))
    parts = [
        "## Data and split",
        _split(f),
        "## Figures",
        f"{_INTERVAL_NOTE} Chance is about 0.1.",
        _table(("what", "figure"), rows),
        _leaky_note(leaky) if leaky else "",
        f"Recall of tracks: {_shares(f['recall'])}.",
        "Tracks, truth in rows, answers in columns:",
        _table(("", *GENRES), [(genre, *row) for genre, row in zip(GENRES, f["confusion"], strict=True)]),
        "## Calibration",
        _calibration(f, temperature, track_temperature),
        "## Uncertain answers",
        _uncertain(f["uncertain"]),
        "## Bandwidth",
        _bandwidth(f),
        *(("## Fewer segments", _fewer_segments(f["fewer_segments"])) if f.get("fewer_segments") else ()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _split(f: dict[str, Any]) -> str:
    split = f["split"]
    told = f"{f['clips']} clips judged, by {f['groups']} artists, {f['segments']} segments. Clips: {f['data']}.\n"
    if split["name"] == "artist":
        told += (
            f"{split['folds']}-fold cross-validation, seed {split['seed']}: no artist is ever in both training and "
            "test, and credits that share a name are one artist."
        )
    elif split["name"] == "fault-filtered":
        present, listed = split["present"], split["listed"]
        told += (
            "Fault-filtered split of GTZAN (Kereliuk, Sturm and Larsen 2015). Of its tracks there are "
            + ", ".join(f"{present[part]} of {listed[part]} in {part}" for part in listed)
            + f"; {split['tests_of_known_artists']} of the tests are by an artist of the training list all the same."
        )
    else:
        told += "A finished model, on all of them."
    if not f["artists_known"]:
        told += (
            "\n**No artists are given: each file counts as an artist of its own. Songs of one artist may be in both "
            "training and test, so the figures come out too high and the intervals too narrow.**"
        )
    if f["skipped"]:
        files = "; ".join(f"{one['file']} ({one['reason']})" for one in f["skipped"])
        told += f"\nLeft out, for they cannot be used: {len(f['skipped'])}: {files}."
    return told


def _leaky_note(leaky: dict[str, Any]) -> str:
    return (
        "The last line is what many tutorials report: the same recipe with the segments of all clips shuffled, "
        f"{leaky['train_segments']} to train on and {leaky['test_segments']} to test. Nearly every tested segment has "
        "its neighbours in training. It says nothing about music the model has not heard. (One split of 80 to 20, not "
        "five; its interval takes segments for independent.)"
    )


def _calibration(f: dict[str, Any], temperature: float, track_temperature: float) -> str:
    errors = _table(
        ("expected calibration error", "before", "after"),
        [(f"{what}s", *(f"{f[f'{what}_ece_{when}']:.3f}" for when in ("before", "after"))) for what in _LEVELS],
    )
    of_perfect = 1 / f["clips"] ** 0.5
    return f"""Temperatures (Guo et al. 2017): {temperature:g} of a segment, {track_temperature:g} of a track.
A track is the mean of its calibrated segments to the power of 1 / its temperature, normalised. The errors are of
temperatures that were fitted to other tracks.

{errors}

With {f["clips"]} tracks even a perfectly calibrated model shows an error of some {of_perfect:.2f}."""


def _uncertain(uncertain: dict[str, Any]) -> str:
    aim = f"{uncertain['aim']:.0%}"
    if uncertain["below"] is None:
        return f"No confidence is known from which on {aim} of the answers are right: take each for a guess."
    above = uncertain["accuracy_above"]
    return (
        f"An answer below a confidence of {uncertain['below']:.2f} is to be called uncertain: from there on at least "
        f"{aim} of the held-out tracks were right when it was chosen. Here {uncertain['share_above']:.0%} of the "
        f"tracks reach it; of their answers {'none' if above is None else _interval(above)} are right."
    )


def _bandwidth(f: dict[str, Any]) -> str:
    told = (
        f"Everything cut at 8 kHz: {_interval(f['track_accuracy_limited_bandwidth'])} of tracks right; "
        f"{_number(f['same_answer_in_limited_bandwidth'])} of them keep their answer."
    )
    if f["narrow_clips"]:
        told += (
            f"\n{f['narrow_clips']} clips exist only at 16 kHz. Accuracy of these: "
            f"{_number(f['track_accuracy_of_narrow_clips'])}, of the others: "
            f"{_number(f['track_accuracy_of_wide_clips'])}."
        )
    return told


def _fewer_segments(rows: Sequence[dict[str, Any]]) -> str:
    table = _table(
        ("segments", "accuracy, tracks", "same answer as from all"),
        [(row["segments"], _number(row["track_accuracy"]), _number(row["same_answer"])) for row in rows],
    )
    return f"What it costs to judge a track by a few evenly spaced segments (`TONESTREAM_MAX_SEGMENTS`):\n\n{table}"


def _weak_genres(f: dict[str, Any]) -> str:
    weak = [genre for genre, share in f["recall"].items() if share is not None and share < _WEAK_RECALL]
    few = [genre for genre, count in f["groups_of"].items() if count <= _FEW_ARTISTS]
    lines = [
        f"- Fewer than half of the tracks are recognised of: {', '.join(weak)}." if weak else "",
        f"- Of {', '.join(few)} there are {_FEW_ARTISTS} artists or fewer, so their recall says little." if few else "",
    ]
    if f["data"].startswith("GTZAN"):
        lines.append("- GTZAN is Western music of the 20th century, with known mislabellings (Sturm 2013).")
    return "\n".join(line for line in lines if line)


def mood_card(manifest: ModelManifest) -> str:
    """The card of a mood model, Markdown."""
    f = manifest.figures
    return f"""# {manifest.model_id}
Tells which of four moods a track has ({", ".join(manifest.labels)}) from ten audio features: Spotify's, or the same ten
measured from the audio. One network for each, in one file; the manifest holds a scaler and a temperature for both.

The network turns each standardised feature into its rank among the training tracks and averages {f["members"]} members
of one hidden layer ({f["hidden"]} units, ReLU, dropout; {f["steps"]} steps of AdamW). Labellers do not mean the same by
a mood, so each member gives the probabilities of every labeller and the answer is their mean, weighted by the share of
the tracks that each labelled. Who labelled a track is never told when it is judged.

{mood_report(f, manifest.temperature)}
## Plots
![confusion](confusion.png)
![reliability](reliability.png)

## Measured features
{_measured(f["audio"], manifest.temperature_of("audio"))}
## Limits
- Spotify closed its features to new apps in November 2024: most users get the measured ones.
- Moods of a track are a matter of taste; the labels are the view of few people, and features of the sound alone do not
  tell their views apart.
{_ending(manifest, "The tables and the reference recordings are for research and no part of this repository.")}"""


def mood_report(f: dict[str, Any], temperature: float) -> str:
    """The figures of a mood model on Spotify's features (`training.mood_figures`) and its temperature, Markdown."""
    scores = [(source, row["tracks"], _interval(row["accuracy"])) for source, row in f["accuracy"].items()]
    parts = [
        "## Data and split",
        _mood_split(f),
        "## Figures, Spotify's features",
        f"{_INTERVAL_NOTE} Chance is about 0.25.",
        _table(("labeller", "tracks", "accuracy"), scores),
        _repeated(f["repeated"]) if "repeated" in f else "",
        f"Without duration, all tracks: {_interval(f['accuracy_without_duration'])}. A file may be a preview, so "
        "measured features are judged without it."
        if "accuracy_without_duration" in f
        else "",
        f"Recall: {_shares(f['recall'])}.",
        "Truth in rows, answers in columns:",
        _table(("", *MOODS), [(mood, *row) for mood, row in zip(MOODS, f["confusion"], strict=True)]),
        "## Calibration",
        f"Temperature {temperature:g} (Guo et al. 2017). Expected calibration error before {f['ece_before']:.3f}, "
        f"after {f['ece_after']:.3f}"
        + (", of temperatures that were fitted to other folds." if "repeated" in f else ".")
        + f" With {f['tracks']} tracks even a perfectly calibrated model shows an error of some "
        f"{1 / f['tracks'] ** 0.5:.2f}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _mood_split(f: dict[str, Any]) -> str:
    told = f"{f['tracks']} tracks by {f['groups']} artists, labelled by {max(1, len(f['accuracy']) - 1)}.\n"
    if "repeated" in f:
        told += (
            f"{f['folds']}-fold cross-validation, seed {f['seed']}: no artist is ever in both training and test, and "
            "scaler, ranks and network are fitted to the other folds only. The settings of the network were chosen "
            "among some forty by cross-validation on the 685 tracks of the shipped model; figures on those are "
            "flattered by a point or so."
        )
    else:
        told += "A finished model, on all of them."
    if not f["artists_known"]:
        told += (
            "\n**No artists are given: each track counts as an artist of its own. Songs of one artist may be in both "
            "training and test, so the figures come out too high and the intervals too narrow.**"
        )
    return told


def _repeated(repeated: dict[str, Any]) -> str:
    by_source = ", ".join(f"{name} {share:.3f}" for name, share in repeated["by_source"].items())
    return (
        f"Repeated {repeated['runs']} times with other folds: mean {repeated['mean']:.3f}, standard deviation "
        f"{repeated['deviation']:.3f} ({by_source}). This is the figure to compare models by."
    )


def _measured(audio: dict[str, Any], temperature: float) -> str:
    told = f"""Where there is no music of which both the audio and a mood are known, the network cannot be trained on
measured features. It is then trained on Spotify's without duration, and mean and deviation of each measured feature
over {audio.get("reference_clips", 0)} reference recordings are matched to those of the training tracks; tempo, the
same thing on both sides, keeps Spotify's scale. This takes the recordings and the training tracks for alike, which is
roughly true at best, and it takes an estimate for the thing: the measured valence is hardly Spotify's. The temperature
({temperature:g}) is that of Spotify's features: the answers are surer than they should be.
"""
    return f"{told}\n{_listeners(audio)}"


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
    what = f"{spec.coefficients} {'MFCCs' if spec.kind == 'mfcc' else 'mel bands'}"
    rate = spec.analysis_rate or spec.sample_rate
    return f"{spec.frames} frames of {what} from {spec.segment_s:g} s at {rate} Hz (`{spec.id}`)"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _shares(shares: dict[str, float | None]) -> str:
    return ", ".join(f"{label} {_number(share)}" for label, share in shares.items())


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
