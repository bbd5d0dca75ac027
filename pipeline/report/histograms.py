"""Four histograms of a dataset in one figure: caption lengths, captions per video, durations, for
every split.
"""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.colours import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RED
from pipeline.report.dataset_facts import SPECIAL, SplitFacts
from pipeline.report.plots import dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
_MOST_BINS, _FEWEST_BINS = 40, 3
# values beyond this quantile go into the last bin, so that one outlier does not flatten the rest
_TAIL = 0.995


def png(found: Mapping[str, SplitFacts], limit: int, title: str) -> bytes:
    """Return the figure. limit: tokens of a text, marked where captions are cut. Equal facts give
    equal pictures.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(11, 6.6), layout="constrained", dpi=110)
        FigureCanvasAgg(figure)
        figure.suptitle(
            title.encode("ascii", "backslashreplace").decode(),
            color=INK,
            fontsize=13,
            x=0.01,
            ha="left",
        )
        axes = figure.subplots(2, 2).ravel()
        _histogram(
            axes[0],
            {n: f.words for n, f in found.items()},
            "words per caption",
            "share of captions",
        )
        _histogram(
            axes[1],
            {n: f.tokens for n, f in found.items()},
            "CLIP tokens per caption",
            "share of captions",
        )
        _mark(axes[1], limit - SPECIAL, f"cut at {limit}")
        _histogram(
            axes[2],
            {n: f.captions for n, f in found.items()},
            "captions per video",
            "share of videos",
        )
        _histogram(axes[3], {n: f.seconds for n, f in found.items()}, "seconds", "share of videos")
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            where = "outside upper right"
            figure.legend(
                handles, labels, frameon=False, labelcolor=INK, loc=where, ncols=len(labels)
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _histogram(axes: "Axes", values: Mapping[str, list], x_label: str, y_label: str) -> None:
    """Outlines of all splits over each other, each as a share of its own values."""
    _dress(axes, x_label, y_label)
    known = {
        name: np.array(numbers, np.float64) for name, numbers in values.items() if len(numbers)
    }
    if not known:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set_yticks([])
        axes.set_xticks([])
        return
    whole = np.concatenate(list(known.values()))
    edges = _edges(whole)
    for n, (name, numbers) in enumerate(values.items()):
        if not len(numbers):
            continue
        array = np.minimum(known[name], (edges[-2] + edges[-1]) / 2)
        heights, _ = np.histogram(array, edges)
        colour = _COLOURS[n % len(_COLOURS)]
        share = heights / len(array)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.18)
        axes.stairs(share, edges, color=colour, linewidth=1.7, label=name)
    if whole.max() > edges[-1]:
        axes.set_xlabel(
            f"{x_label} (the last bar: all up to {whole.max():,.0f})", color=MUTED, fontsize=10
        )


def _edges(values: np.ndarray) -> np.ndarray:
    """Bounds of the bins: whole numbers, one bin per number as long as there are not too many."""
    low, high = np.floor(values.min()), np.ceil(np.quantile(values, _TAIL))
    step = max(1.0, np.ceil((high - low) / _MOST_BINS))
    n_bins = int((high - low) // step) + 1
    if n_bins < _FEWEST_BINS:  # a single value: a bar with room on both sides
        low, n_bins = low - 1, _FEWEST_BINS
    is_whole = bool((values == np.round(values)).all())
    return (low - 0.5 if is_whole else low) + step * np.arange(n_bins + 1)


def _mark(axes: "Axes", x: float, words: str) -> None:
    low, high = axes.get_xlim()
    if low < x + 0.5 < high and axes.patches:
        axes.axvline(x + 0.5, color=INK, linestyle="--", linewidth=1)
        axes.annotate(
            words,
            (x + 0.5, 1),
            (4, -12),
            ("data", "axes fraction"),
            "offset points",
            color=INK,
            fontsize=9,
        )


def _dress(axes: "Axes", x_label: str, y_label: str) -> None:
    from matplotlib.ticker import PercentFormatter

    dress(axes, x_label, y_label, font_size=10, ticks=8)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
