"""The figure of docs/capacity.md: backlog, workers and latency over time, for each situation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.capacity.report import DOCUMENT
from benchmarks.capacity.scenarios import Situation
from benchmarks.capacity.simulation import Outcome
from shared.contracts.messages import Stage

FIGURE: Final = DOCUMENT.with_name("capacity.png")
#: Colours that people with any colour vision can tell apart (Okabe and Ito).
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")


def draw(found: Sequence[tuple[Situation, Outcome]], target: Path = FIGURE) -> None:
    """One column a situation, with a row each for backlog, workers and latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(found), figsize=(4.0 * len(found), 7.5), sharex="col", squeeze=False)
    for column, (situation, outcome) in enumerate(found):
        _column([row[column] for row in axes], situation, outcome)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(Stage), frameon=False)
    for row, text in zip(axes, ("tracks that wait", "workers", "median latency, s"), strict=True):
        row[0].set_ylabel(text)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    # Without the version of matplotlib in the file, the same figures give the same bytes longer.
    figure.savefig(target, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _column(axes: Sequence[Any], situation: Situation, outcome: Outcome) -> None:
    hours = [sample.at_s / 3600 for sample in outcome.samples]
    for number, stage in enumerate(Stage):
        style = {"color": _COLOURS[number], "label": stage.value, "linewidth": 1.3}
        axes[0].plot(hours, [sample.backlog[number] for sample in outcome.samples], **style)
        axes[1].step(hours, [sample.workers[number] for sample in outcome.samples], where="post", **style)
    axes[2].plot(hours, [sample.latency_s for sample in outcome.samples], color="#444444", linewidth=1.3)
    axes[0].set_title(situation.name, fontsize=10)
    # The same scale in every column, so that they can be compared; workers differ too much for that.
    axes[0].set_yscale("symlog", linthresh=10)
    axes[0].set_ylim(0, 20_000)
    axes[1].set_ylim(bottom=0)
    axes[1].yaxis.get_major_locator().set_params(integer=True)
    axes[2].set_yscale("log")
    axes[2].set_ylim(1, 1_000)
    axes[2].set_xlabel("hours")
    for one in axes:
        one.grid(alpha=0.25)
        one.set_xlim(left=0)
