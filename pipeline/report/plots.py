"""Loss and metric curves of a training run as SVG text: equal numbers give equal bytes,
no dates, no scripts.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from pipeline.colours import BLUE, GREEN, INK, LINE, MUTED, OCHRE, ORANGE, PURPLE, RED, SLATE
from pipeline.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, OCHRE, RED, SLATE)
_COLUMNS = 3  # of a legend
_OF_THE_PAGE = {INK: "--ink", MUTED: "--quiet", LINE: "--hair"}
_SKIPPED = {"event", "epoch", "step", "lr", "model", "best", "skipped"}
Curve = tuple[Sequence[float], Sequence[float]]  # x, y


class Line(NamedTuple):
    """A curve and how it is drawn; colour: place in the palette, None: the next one."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = None
    dashed: bool = False


def read_curves(path: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return (training terms by step, validation scores by epoch) of a metrics.jsonl. DataError if
    a line is not JSON.
    """
    train: dict[str, tuple[list, list]] = {}
    validation: dict[str, tuple[list, list]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            values = json.loads(line)
            target, x = (
                (train, values["step"])
                if values["event"] == "train"
                else (validation, values["epoch"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"line {number} is not a record: {error}",
                where=path,
                fix="Run the train step again.",
            ) from error
        suffix = f" ({values['model']})" if values.get("model") not in (None, "raw") else ""
        for name, value in values.items():
            if name not in _SKIPPED and isinstance(value, (int, float)):
                xs, ys = target.setdefault(name + suffix, ([], []))
                xs.append(x)
                ys.append(value)
    return train, validation


def curves(lines: Mapping[str, Line], x_label: str, y_label: str, title: str = "") -> Markup:
    """Return one SVG of named lines, with a legend if there are several.

    title: what it shows, for those who cannot see it. Text and lines take the colours of the page.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "tvrkit",
        "svg.fonttype": "none",
        "font.size": 10,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(5.4, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for n, (name, line) in enumerate(lines.items()):
            axes.plot(
                line.x,
                line.y,
                color=_COLOURS[(n if line.colour is None else line.colour) % len(_COLOURS)],
                linestyle="--" if line.dashed else "-",
                marker="o" if len(line.x) < 3 else None,
                markersize=4,
                linewidth=1.7,
                label=name,
            )
        dress(axes, x_label, y_label)
        if y_label == "percent":
            axes.set_ylim(-2, 103)
        if len(lines) > 1:
            handles, names = axes.get_legend_handles_labels()
            rows = _in_rows(list(zip(handles, names, strict=True)), _COLUMNS)
            figure.legend(
                *zip(*rows, strict=True),
                frameon=False,
                fontsize=9,
                labelcolor=INK,
                loc="outside upper left",
                ncols=_COLUMNS,
                borderpad=0,
            )
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    for colour, variable in _OF_THE_PAGE.items():
        drawn = drawn.replace(f": {colour}", f": var({variable})")
    label = f'role="img" aria-label="{escape(title)}: {escape(", ".join(lines))}"'
    return Markup(drawn.replace("<svg", f"<svg {label}", 1))  # noqa: S704  (drawn here)


def _in_rows(items: list, columns: int) -> list:
    """Return items so that a legend, which fills its columns one after the other, reads by rows."""
    rows = [items[start : start + columns] for start in range(0, len(items), columns)]
    return [row[column] for column in range(columns) for row in rows if column < len(row)]


def dress(axes: "Axes", x_label: str, y_label: str, *, font_size: int = 9, ticks: int = 7) -> None:
    """Give axes our look: labels, whole numbers below, lines across, no frame but the bottom.

    font_size: of the labels, in points. ticks: at most so many numbers below.
    """
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x_label, color=MUTED, fontsize=font_size)
    axes.set_ylabel(y_label, color=MUTED, fontsize=font_size)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=ticks))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
