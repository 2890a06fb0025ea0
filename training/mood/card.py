"""The card of a mood model: its training data, and its quality on Spotify's features and on measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from shared.contracts.labels import MOODS
from shared.models.manifest import ModelManifest
from training.reports.card_parts import INTERVAL_NOTE, decimals, ending, listed, markdown_table, with_interval
from training.reports.figures import FeatureChecks, Felt, ListenerFigures, MoodFigures, Repeated

_LISTENER_LIMITS: Final = """\
- The clips are filed under classical, rock, electronic and pop: nobody was asked about other music. The listeners were
  players of a game on the web.
- What listeners feel is not what a song expresses: sad music is enjoyed, and sadness is felt seldom. It is answered
  seldom, too, and missed most.
- Power and tension are both called energetic: the model confuses triumph with threat.
- The tags that each feature listens to, what is usual of a tag and how far the moods are evened out were chosen with
  these clips at hand, so the figures are flattered a little. There were no other clips with listeners to check on.
- `liveness` is a proxy that nothing here checks. The tempo may be off by an octave."""

_NOTICES: Final = """\
The tables and the recordings are for research and no part of this repository. The tags of measured features are heard
by musicnn, copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019, by Jordi Pons, under the ISC licence:
see ../MUSICNN-LICENSE.md."""


def mood_card(manifest: ModelManifest) -> str:
    """The card of a mood model, Markdown."""
    f = MoodFigures.model_validate(manifest.figures)
    audio = f.audio
    assert audio is not None, "every mood model knows measured features"
    return f"""# {manifest.model_id}
Tells which of four moods a track has ({", ".join(manifest.labels)}) from ten audio features: Spotify's, or the same ten
measured from the audio. One network for each, in one file; the manifest holds a scaler and a temperature for both.

The network for Spotify's features turns each, standardised, into its rank among the training tracks and averages
{f.members} members of one hidden layer ({f.hidden} units, ReLU, dropout; {f.steps} steps of AdamW). Labellers
do not mean the same by a mood, so each member gives the probabilities of every labeller and the answer is their mean,
weighted by the share of the tracks that each labelled. The judge never sees who labelled a track.

{_how_learnt(audio)}

{mood_report(f, manifest.temperature)}
{listener_report(audio)}
## Plots
![confusion](confusion.png)
![reliability](reliability.png)

## Limits
{_uncertain(manifest)}
- Spotify closed its features to new apps in November 2024: most users get the measured ones.
- Moods of a track are a matter of taste; the labels are the view of few people, and features of the sound alone do not
  tell their views apart.
- The two networks learnt from different people who were asked different things: what is calm by Spotify's features need
  not be calm by measured ones.
{_LISTENER_LIMITS}
{ending(manifest, f.training_s, _NOTICES)}"""


def _uncertain(manifest: ModelManifest) -> str:
    if manifest.uncertain_below is None:
        return "- No answer is called uncertain."
    return (
        f"- Answers with a confidence below {manifest.uncertain_below:.2f} are called uncertain in the results:\n"
        "  they are more likely wrong than right, as far as the confidence is right."
    )


def mood_report(f: MoodFigures, temperature: float) -> str:
    """The figures of a mood model on Spotify's features (`training.mood.figures`) and its temperature, Markdown."""
    scores = [(source, row.tracks, with_interval(row.accuracy)) for source, row in f.accuracy.items()]
    parts = [
        "## Spotify's features: data and split",
        _split(f),
        "## Spotify's features: figures",
        f"{INTERVAL_NOTE} Chance is about 0.25.",
        markdown_table(("labeller", "tracks", "accuracy"), scores),
        _repeated(f.repeated) if f.repeated else "",
        f"Recall: {listed(f.recall)}.",
        "Truth in rows, answers in columns:",
        markdown_table(("", *MOODS), [(mood, *row) for mood, row in zip(MOODS, f.confusion, strict=True)]),
        "## Spotify's features: calibration",
        f"Temperature {temperature:g} (Guo et al. 2017). Expected calibration error before {f.ece_before:.3f}, "
        f"after {f.ece_after:.3f}"
        + (", of temperatures that were fitted to other folds." if f.repeated else ".")
        + f" {_unavoidable(f.tracks, 'tracks')}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def listener_report(f: ListenerFigures) -> str:
    """The figures of a mood model on measured features (`training.mood.listener_figures`), Markdown."""
    correlations = [(mood, with_interval(one)) for mood, one in f.correlation.items()]
    parts = [
        "## Measured features: data and split",
        _listeners_split(f),
        "## Measured features: figures",
        f"{INTERVAL_NOTE} Spearman's rank correlation of the probability of a mood with the share of listeners who "
        "felt it, over all clips:",
        markdown_table(("mood", "correlation"), correlations),
        _clear(f),
        "## Measured features: calibration",
        _confidence(f),
        "## Measured features: checks",
        _felt(f.felt),
        _feature_checks(f.features),
    ]
    return "\n\n".join(parts) + "\n"


def _split(f: MoodFigures) -> str:
    text = f"{f.tracks} tracks by {f.groups} artists, labelled by {max(1, len(f.accuracy) - 1)}.\n"
    if f.repeated:
        text += (
            f"{f.folds}-fold cross-validation, seed {f.seed}: no artist is ever in both training and test, and "
            "scaler, ranks and network are fitted to the other folds only. The settings of the network were chosen "
            "among some forty by cross-validation on the 685 tracks of the shipped model; figures on those are "
            "flattered by a point or so."
        )
    else:
        text += "A finished model, on all of them."
    if not f.artists_known:
        text += (
            "\n**No artists are given: each track counts as an artist of its own. Songs of one artist may be in both "
            "training and test, so the figures come out too high and the intervals too narrow.**"
        )
    return text


def _repeated(repeated: Repeated) -> str:
    by_source = ", ".join(f"{name} {share:.3f}" for name, share in repeated.by_source.items())
    return (
        f"Repeated {repeated.runs} times with other folds: mean {repeated.mean:.3f}, standard deviation "
        f"{repeated.deviation:.3f} ({by_source}). This is the figure to compare models by."
    )


def _how_learnt(f: ListenerFigures) -> str:
    return f"""\
The network for measured features never sees Spotify's numbers. The ten are measured from the signal of up to a minute
and the tags of up to {f.tag_segments} segments (`{f.tag_model}`), both spread evenly over the track;
`shared/audio/track_features/measures.py` says what each one is. The network learns from them how the listeners of a
clip share out among the moods: {f.members} members of one hidden layer ({f.hidden} units, ReLU, noise, dropout;
{f.steps} steps of AdamW), and their logits are averaged. The share of a mood is that of the listeners who felt
the emotions next to it (calm: calmness and tenderness; energetic: power and tension; happy: joyful activation; sad:
sadness), divided by the square root of its mean, because some are ticked more readily than others. Duration is
ignored: a file may be an excerpt."""


def _listeners_split(f: ListenerFigures) -> str:
    text = (
        f"{f.clips} clips of about a minute by {f.groups} artists, of the Emotify set (Aljanaki, Wiering and "
        f"Veltkamp 2016). {f.folds}-fold cross-validation, {f.repeats} times with other folds, seeds from "
        f"{f.seed} on: no artist is ever in both training and test, and scaler, targets and network are fitted to "
        "the other folds only. Figures are means over the repeats. The shipped weights were then trained on all clips."
    )
    if f.taken_from:
        text += f"\n\n**This part is that of `{f.taken_from}`, unchanged, and so are its figures.**"
    return text


def _clear(f: ListenerFigures) -> str:
    rows = [
        (f"its part of the four shares leads by {f.clear_lead:g}", f.clear_clips, f.clear_accuracy),
        (
            f"its share leads by {f.clear_deviations:g}, in deviations from the mood's mean",
            f.clear_clips_by_deviation,
            f.clear_accuracy_by_deviation,
        ),
    ]
    text = [(name, _counted(clips), "none" if one is None else with_interval(one)) for name, clips, one in rows]
    text.append(("its share is the largest", str(f.clips), "none" if f.accuracy is None else with_interval(f.accuracy)))
    commonest = max(f.clear_clips.values()) / max(1, sum(f.clear_clips.values()))
    confusion = [(mood, *row) for mood, row in zip(MOODS, f.clear_confusion, strict=True)]
    return f"""Share of right answers of four, the leading mood being the truth. On many clips listeners disagree, so it
is given for the clear ones, by two definitions, and for all. Chance is about 0.25; always to answer the commonest mood
of the clear clips (the first row) is right on {commonest:.2f} of them.

{markdown_table(("clips whose mood", "clips", "accuracy"), text)}

Recall on the clear clips of the first row: {listed(f.clear_recall)}. All {f.repeats} repeats together, truth in
rows, answers in columns:

{markdown_table(("", *MOODS), confusion)}

Of all clips, share of the answers: {listed(f.answers)}; share of the clips on which most felt the mood:
{listed(f.top)}."""


def _counted(by_mood: Mapping[str, int]) -> str:
    return f"{sum(by_mood.values())} ({', '.join(f'{mood} {count}' for mood, count in by_mood.items())})"


def _confidence(f: ListenerFigures) -> str:
    sure = f.sure
    text = f"""Temperature {f.temperature:g} (Guo et al. 2017), fitted to the mood that most felt. Expected
calibration error before {f.ece_before:.3f}, after {f.ece_after:.3f}, of temperatures that were fitted to other
folds. {_unavoidable(f.clips, "clips")} Before, the network tells how
listeners share out, and that is more even than how often the leading mood is the right one.

A confidence is the chance that the answer is the mood that most listeners felt, not that a given one feels it. """
    if sure.accuracy is None:
        return f"{text}No answer reaches {sure.at_least:g}."
    right = with_interval(sure.accuracy)
    return f"{text}{sure.share:.0%} of the answers reach {sure.at_least:g}; of these {right} are right."


def _felt(rows: Sequence[Felt]) -> str:
    table = markdown_table(
        ("feature", "listeners who felt", "correlation"),
        [(row.feature, row.mood, with_interval(row.correlation)) for row in rows],
    )
    return f"Single features against the share of listeners, Spearman's rank correlation, nothing trained:\n\n{table}"


def _feature_checks(f: FeatureChecks | None) -> str:
    if f is None:
        return "The order of the features over genres was not checked."
    table = markdown_table(
        ("feature", "more of it", "less of it", "artists", "chance"),
        [
            (
                row.feature,
                _genres(row.more),
                _genres(row.less),
                "{} and {}".format(*row.artists),
                with_interval(row.auc),
            )
            for row in f.orders
        ],
    )
    text = f"""Over {f.clips} clips with a genre, the chance that one of the first genres has more of a feature than
one of the second (area under the ROC curve; 0.5 is no order). Where a side has two or three artists, the interval says
little:

{table}"""
    if tempo := f.tempo:
        text += (
            f"\n\nTempo: {decimals(tempo.right)} of {tempo.clips} clips are within 4% of the BPM that the index "
            f"gives, {decimals(tempo.right_up_to_octaves)} when octave errors count as right (twice, three times, a "
            "half or a third of it)."
        )
    return text


def _genres(names: Sequence[str]) -> str:
    return "all others" if len(names) > 3 else ", ".join(names)


def _unavoidable(count: int, what: str) -> str:
    return f"With {count} {what} even a perfectly calibrated model shows an error of some {1 / count**0.5:.2f}."
