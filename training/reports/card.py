"""Model cards, written from the manifest alone, so that card and manifest never disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.audio.spec import FeatureSpec
from shared.contracts.labels import GENRES
from shared.models.manifest import ModelManifest
from training.genre.protocol import REFERENCES
from training.mood.card import mood_card
from training.reports.card_parts import INTERVAL_NOTE, decimals, ending, listed, markdown_table, with_interval
from training.reports.figures import (
    ContentFigures,
    FewerSegments,
    FitFigures,
    GenreFigures,
    Leaky,
    Uncertain,
    VariedAnswers,
)

_CARD: Final = "CARD.md"
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
    f = GenreFigures.model_validate(manifest.figures)
    notes = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in f.notes.items() if name != REFERENCES)
    rights = "The recordings belong to their owners and are no part of this repository."
    return f"""# {manifest.model_id}
Tells which of ten genres a segment of 3 s is: {", ".join(manifest.labels)}.
The answer for a track is put together from its segments by the aggregator.

{f.description}

Recipe `{f.recipe}`{f" ({notes})" if notes else ""}. Input: {_described(manifest.require_feature_spec())}.
The figures are of models trained in the same way on a part of the clips and judged on the rest. The shipped weights
were then trained on all {len(f.trained_on or ())} clips.

{genre_report(f, manifest.temperature, manifest.track_temperature)}
## Plots
![confusion](confusion.png)
![reliability](reliability.png)

## Limits
{_no_none_of_these(f)}
{_weak_genres(f)}
{ending(manifest, f.training_s, " ".join(part for part in (f.notices, rights) if part))}"""


def genre_report(f: GenreFigures, temperature: float, track_temperature: float) -> str:
    """The figures of a genre model (`training.genre.figures`) and its two temperatures, Markdown."""
    leaky = f.leaky
    rows = [
        ("accuracy, tracks", with_interval(f.track_accuracy)),
        ("accuracy, segments", with_interval(f.segment_accuracy)),
    ]
    for name, share in f.notes.get(REFERENCES, {}).items():
        rows.append((f"to compare, in the same folds, tracks: {name}", decimals(share)))
    if leaky:
        rows.append(("LEAKY: segments, random split by segment", with_interval(leaky.segment_accuracy)))
    parts = [
        "## Data and split",
        _split(f),
        "## Figures",
        f"{INTERVAL_NOTE} Chance is about 0.1.",
        markdown_table(("what", "figure"), rows),
        _leaky_note(leaky) if leaky else "",
        f"Recall of tracks: {listed(f.recall)}.",
        "Tracks, truth in rows, answers in columns:",
        markdown_table(("", *GENRES), [(genre, *row) for genre, row in zip(GENRES, f.confusion, strict=True)]),
        "## Calibration",
        _calibration(f, temperature, track_temperature),
        "## Uncertain answers",
        _uncertain(f.uncertain),
        "## Bandwidth",
        _bandwidth(f),
        *(("## Steadiness", _steadiness(f.variations)) if f.variations else ()),
        *(("## Fit and content", _fit_and_content(f.fit, f.content)) if f.fit else ()),
        *(("## Fewer segments", _fewer_segments(f.fewer_segments)) if f.fewer_segments else ()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _split(f: GenreFigures) -> str:
    split = f.split
    text = f"{f.clips} clips judged, by {f.groups} artists, {f.segments} segments. Clips: {f.data}.\n"
    if split.name == "artist":
        text += (
            f"{split.folds}-fold cross-validation, seed {split.seed}: no artist is ever in both training and "
            "test, and credits that share a name are one artist."
        )
    elif split.name == "fault-filtered":
        present, listed = split.present or {}, split.listed or {}
        text += (
            "Fault-filtered split of GTZAN (Kereliuk, Sturm and Larsen 2015). Of its tracks there are "
            + ", ".join(f"{present[part]} of {listed[part]} in {part}" for part in listed)
            + f"; {split.tests_of_known_artists} of the tests are by an artist of the training list all the same."
        )
    else:
        text += "A finished model, on all of them."
    if not f.artists_known:
        text += (
            "\n**No artists are given: each file counts as an artist of its own. Songs of one artist may be in both "
            "training and test, so the figures come out too high and the intervals too narrow.**"
        )
    if f.skipped:
        files = "; ".join(f"{one.file} ({one.reason})" for one in f.skipped)
        text += f"\nLeft out, because they cannot be used: {len(f.skipped)}: {files}."
    return text


def _leaky_note(leaky: Leaky) -> str:
    return (
        "The last line is what many tutorials report: the same protocol with the segments of all clips shuffled, "
        f"{leaky.train_segments} to train on and {leaky.test_segments} to test. Nearly every tested segment has "
        "its neighbours in training. It says nothing about music the model has not heard. (One split of 80 to 20, not "
        "five; its interval takes segments for independent.)"
    )


def _calibration(f: GenreFigures, temperature: float, track_temperature: float) -> str:
    errors = markdown_table(
        ("expected calibration error", "before", "after"),
        [
            (what, f"{one.ece_before:.3f}", f"{one.ece_after:.3f}")
            for what, one in (("tracks", f.track_reliability), ("segments", f.segment_reliability))
        ],
    )
    of_perfect = 1 / f.clips**0.5
    return f"""Temperatures (Guo et al. 2017): {temperature:g} of a segment, {track_temperature:g} of a track.
A track is the mean of its calibrated segments to the power of 1 / its temperature, normalised. The errors are of
temperatures that were fitted to other tracks.

{errors}

With {f.clips} tracks even a perfectly calibrated model shows an error of some {of_perfect:.2f}."""


def _uncertain(uncertain: Uncertain) -> str:
    if uncertain.below is None:
        return "This model calls none of its answers uncertain."
    text = (
        f"A track's answer with a confidence below {uncertain.below:.2f} is called uncertain: by that confidence it "
        f"is more likely wrong than right. That is {uncertain.share:.0%} of these tracks"
    )
    text += f", and {decimals(uncertain.accuracy)} of them are right" if uncertain.share else ""
    others = uncertain.accuracy_of_others
    return text + (f"; of the others {with_interval(others)} are." if others else ".")


def _bandwidth(f: GenreFigures) -> str:
    text = (
        f"Everything cut at 8 kHz: {with_interval(f.track_accuracy_limited_bandwidth)} of tracks right; "
        f"{decimals(f.same_answer_in_limited_bandwidth)} of them keep their answer."
    )
    if f.narrow_clips:
        text += (
            f"\n{f.narrow_clips} clips exist only at 16 kHz. Accuracy of these: "
            f"{decimals(f.track_accuracy_of_narrow_clips)}, of the others: "
            f"{decimals(f.track_accuracy_of_wide_clips)}."
        )
    return text


def _steadiness(rows: Sequence[VariedAnswers]) -> str:
    table = markdown_table(
        ("recording", "same answer", "confidence moves by (mean)"),
        [(row.name, f"{row.same_answer:.0%}", f"{row.confidence_moved:.3f}") for row in rows],
    )
    return f"The held-out tracks again, changed in ways that should not matter:\n\n{table}"


def _fit_and_content(fit: FitFigures, content: ContentFigures | None) -> str:
    text = (
        "**Fit**: how far the tags of a track are from those of the ten genres. Each genre was left out in turn, and "
        "its held-out tracks compared with those of the other nine: area under the ROC curve "
        f"{with_interval(fit.auroc)}, by the genre left out: {listed(fit.auroc_by_genre)}. Below {fit.below:.2f} a "
        f"track is called none of the ten: {fit.false_alarms:.0%} of tracks of known genres, and {fit.found:.0%} of "
        "those left out. (The network itself saw other clips of a left-out genre; only the regions did not.)"
    )
    if content is None:
        return text
    rows = [(name, f"{area:.3f}", f"{content.right[name]:.0%}") for name, area in content.auroc_against_music.items()]
    table = markdown_table(("source, left out of training", "area under the ROC curve, against music", "right"), rows)
    counts = ", ".join(f"{count} of {name}" for name, count in content.segments.items())
    return (
        f"{text}\n\n**Content**: music, speech or other sounds, from the hidden layer. Trained on segments ({counts}). "
        f"Of clips whose artists were left out {content.tracks_right:.0%} are called music ({content.music_right:.0%} "
        f"of their segments). (Only the last layer left them out.)\n\n{table}"
    )


def _fewer_segments(rows: Sequence[FewerSegments]) -> str:
    table = markdown_table(
        ("segments", "accuracy, tracks", "same answer as from all"),
        [(row.segments, decimals(row.track_accuracy), decimals(row.same_answer)) for row in rows],
    )
    return f"What it costs to judge a track by a few evenly spaced segments (`TONESTREAM_MAX_SEGMENTS`):\n\n{table}"


def _weak_genres(f: GenreFigures) -> str:
    weak = [genre for genre, share in f.recall.items() if share is not None and share < _WEAK_RECALL]
    few = [genre for genre, count in f.groups_of.items() if count <= _FEW_ARTISTS]
    lines = [
        f"- Fewer than half of the tracks are recognised of: {', '.join(weak)}." if weak else "",
        f"- Of {', '.join(few)} there are {_FEW_ARTISTS} artists or fewer, so their recall says little." if few else "",
    ]
    if f.data.startswith("GTZAN"):
        lines.append("- GTZAN is Western music of the 20th century, with known mislabellings (Sturm 2013).")
    return "\n".join(line for line in lines if line)


def _no_none_of_these(f: GenreFigures) -> str:
    text = "- Music of another kind than the ten genres is called one of them as well"
    return f"{text}; the fit says how far it is from them." if f.fit else f'{text}: there is no "none of these".'


def _described(spec: FeatureSpec) -> str:
    what = f"{spec.coefficients} {'MFCCs' if spec.kind == 'mfcc' else 'mel bands'}"
    rate = spec.analysis_rate or spec.sample_rate
    return f"{spec.frames} frames of {what} from {spec.segment_s:g} s at {rate} Hz (`{spec.id}`)"
