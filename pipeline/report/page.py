"""The report: one self-contained HTML page, made of what the steps left on disk. Equal inputs give
equal bytes.

Nothing in the page depends on time, host or path; what does (how long steps took, the command as
typed) is a second page below `_state/` that this one shows in place when it lies beside it (see
`stages/report.py`). Here stands what is shown; how it looks stands in
`pipeline/pages/templates/report.html.jinja`.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.evaluation.intervals import interval_words
from pipeline.evaluation.results import ALONE, tie_policies
from pipeline.pages.render import render
from pipeline.report import plots

RUN_PAGE = "_state/times.html"
_SIDES = (("t2v", "Text → video"), ("v2t", "Video → text"))
_BINS = (
    ("1", 1, 1),
    ("2–5", 2, 5),
    ("6–10", 6, 10),
    ("11–50", 11, 50),
    ("over 50", 51, float("inf")),
)
_RERANKS = {
    "dsl": "with dual softmax",
    "qbnorm": "with query bank",
    "diffusion": "with diffusion",
    "similarity": "similarity alone",
}
_TRANSDUCTIVE = {"dsl", "qbnorm"}
_FAILURES_SHOWN = 50
_TILES = 5  # videos beside each other below a query
_RECALLS = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}
_QUERIES = (
    ("best", "Won, from the clearest to the closest"),
    ("worst", "Lost, the furthest first"),
)


@dataclass(frozen=True)
class ReportEntry:
    """One evaluated checkpoint. metrics: its metrics.json. ranks: {side: pessimistic ranks from 1},
    first rerank.
    """

    metrics: dict
    ranks: dict
    train: dict[str, plots.Curve] = field(default_factory=dict)
    validation: dict[str, plots.Curve] = field(default_factory=dict)
    published: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.metrics["checkpoint"]

    @property
    def first(self) -> dict:
        """The metrics of the first way of ranking."""
        return next(iter(self.metrics["results"].values()))


@dataclass(frozen=True)
class ReportStep:
    """One step of the pipeline. failures: (id, reason, message)."""

    name: str
    stage: str
    counts: dict[str, int]
    bytes: int
    options: dict
    failures: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All that the page shows. thumbnails: JPEGs by video id. clips: addresses of files that a
    browser plays, relative to the page, by video id.
    """

    title: str
    entries: list[ReportEntry]
    steps: list[ReportStep]
    versions: dict[str, str]
    thumbnails: dict[str, list[bytes]]
    clips: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> ReportEntry:
        """The checkpoint with the highest R@1 from text to video; of equals the first."""
        return max(self.entries, key=lambda entry: entry.first["t2v"]["R1"])


def page(report: Report) -> str:
    """Return the whole page."""
    failures = [(step.name, *failure) for step in report.steps for failure in step.failures]
    steps = [
        {
            "name": step.name,
            "stage": step.stage,
            "counts": step.counts,
            "bytes": step.bytes,
            "settings": json.dumps(step.options, indent=1),
        }
        for step in report.steps
    ]
    return render(
        "report",
        title=report.title,
        lead=_lead(report),
        cards=_cards(report),
        best_name=report.best.name if len(report.entries) > 1 else "",
        sides=[words for _, words in _SIDES],
        **_results(report),
        curves=[drawn for entry in report.entries for drawn in _training(entry)],
        ranks=[drawn for entry in report.entries for drawn in _histograms(entry)],
        attributes=_attributes(report.entries),
        entries=_queries(report),
        steps=steps,
        failures=failures[:_FAILURES_SHOWN],
        more_failures=max(0, len(failures) - _FAILURES_SHOWN),
        run_page=RUN_PAGE,
        versions=report.versions,
    )


def run_page(
    command: str,
    when: str,
    machine: str,
    times: Iterable[tuple[str, float]],
    speeds: Iterable[tuple[str, str]] = (),
) -> str:
    """Return the second page: the command as typed, how long each step took when it last ran, and
    how fast each checkpoint was evaluated.
    """
    rows = list(times)
    longest = max((seconds for _, seconds in rows), default=0) or 1
    bars = [
        _bar(name, 100 * seconds / longest, shown=f"{seconds:,.1f} s") for name, seconds in rows
    ]
    return render(
        "times",
        title="How it was run",
        command=command,
        when=when,
        machine=machine,
        bars=bars,
        total=sum(seconds for _, seconds in rows),
        speeds=list(speeds),
    )


def _bar(label: str, percent: float, mark: float | None = None, shown: str = "") -> dict:
    """Return a row of a table of bars. mark: where its tick stands, in percent."""
    return {"label": label, "percent": percent, "mark": mark, "shown": shown}


def _lead(report: Report) -> dict[str, str]:
    first, n = report.entries[0].metrics, len(report.entries)
    return {
        "before": f"{n} {'checkpoint' if n == 1 else 'checkpoints'} ranked on the split ",
        "split": first["split"],
        "after": f": {first['texts']:,} captions, {first['videos']:,} videos.",
    }


def _cards(report: Report) -> list[dict[str, str]]:
    top = report.best
    values = top.first
    times = values["t2v"]["R1"] / top.metrics["chance"]["t2v"]["R1"]
    cards = [
        (f"{values['t2v']['R1']:.1f}", "%", "text → video R@1"),
        (f"{values['v2t']['R1']:.1f}", "%", "video → text R@1"),
        (f"{values['Rsum']:.1f}", "of 600", "sum of R@1, 5, 10 both ways"),
        (f"{times:.1f}", "×", "chance at text → video R@1"),
    ]
    return [{"number": number, "unit": unit, "words": words} for number, unit, words in cards]


def _results(report: Report) -> dict[str, object]:
    """Return the table: its columns, its rows, and what stands below it."""
    rows = [
        (entry, name, values)
        for entry in report.entries
        for name, values in entry.metrics["results"].items()
    ]
    first = rows[0][2]
    keys = [key for key in first["t2v"] if key[0] == "R" and key[1:].isdigit()] + ["MdR", "MnR"]
    best = {
        (side, key): _best([v[side][key] for _, name, v in rows if name == "none"], key)
        for side, _ in _SIDES
        for key in keys
    }
    table = [_result_row(entry, name, values, keys, best) for entry, name, values in rows]
    chance = report.entries[0].metrics["chance"]
    guesses = [
        _cell(chance[side].get(key), "" if n else "first")
        for side, _ in _SIDES
        for n, key in enumerate(keys)
    ]
    table.append(
        {"kind": "chance", "label": "chance", "cells": guesses, "total": None, "trained": ""}
    )
    gains = [
        (entry.name, _gain(gain))
        for entry in report.entries
        for gain in entry.metrics.get("gains", {}).values()
    ]
    return {"keys": keys, "table": table, "gains": gains, "legend": _legend(rows)}


def _cell(
    value: float | None, *marks: str, delta: str = "", interval: list[float] | None = None
) -> dict:
    """Return one cell. delta: to the published figure; interval: of 95 percent."""
    classes = " ".join(mark for mark in marks if mark)
    return {"value": value, "marks": classes, "delta": delta, "interval": interval}


def _result_row(entry: ReportEntry, name: str, values: dict, keys: list[str], best: dict) -> dict:
    is_plain = name == "none"
    intervals = values.get("intervals", {})
    cells = []
    for side, _ in _SIDES:
        for n, key in enumerate(keys):
            value = values[side][key]
            published = entry.published.get(side, {}).get(key) if is_plain else None
            cells.append(
                _cell(
                    value,
                    "" if n else "first",
                    "best" if is_plain and value == best[side, key] else "",
                    delta="" if published is None else f"{value - published:+z.1f}",
                    interval=intervals.get(side, {}).get(key) if key == "R1" else None,
                )
            )
    # below the first row of its checkpoint
    is_below = not is_plain and name != next(iter(entry.metrics["results"]))
    label = _RERANKS.get(name, f"with {name}")
    if not is_below:
        label = entry.name if is_plain else f"{entry.name} {label}"
    return {
        "kind": "sub" if is_below else "",
        "label": label,
        "cells": cells,
        "total": values["Rsum"],
        "trained": "" if is_below else _trained(entry.metrics.get("parameters")),
    }


def _trained(parameters: dict[str, int] | None) -> str:
    """Return the share of a model's parameters that its recipe trains."""
    return f"{100 * parameters['trained'] / parameters['all']:.3g} %" if parameters else ""


def _gain(gain: dict) -> str:
    """Return what sampling adds to the scores it starts from."""
    both = "; ".join(
        f"{words.lower()} R@1 {gain[side]['R1']:+z.1f}, mean rank {gain[side]['MnR']:+z.1f}"
        for side, words in _SIDES
    )
    return f"Sampling, against {ALONE[gain['over']]}: {both}."


def _legend(rows: list[tuple[ReportEntry, str, dict]]) -> str:
    first = rows[0][2]
    policies = tie_policies([values for *_, values in rows])
    tied = sum(values["tied"] for _, name, values in rows if name == "none")
    gallery = "all captions" if first["v2t_definition"] == "captions" else "caption groups"
    words = (
        "R@k: percent of queries whose own item is among the first k. MdR, MnR: median and mean"
        " rank. Bold: best without re-ranking. Trained: share of the parameters. Ties"
        f" {policies} ({tied:,} tied queries); video → text over {gallery}."
    )
    if "intervals" in first:
        words += f" Small, below R@1: {interval_words(first['intervals'])}."
    if any(name in _TRANSDUCTIVE for _, name, _ in rows):
        words += (
            " Dual softmax and query bank use other queries than the one asked: compare them with"
            " their like only."
        )
    if any(entry.published for entry, _, _ in rows):
        words += " Small, with a sign: difference to the published figure."
    return words


def _training(entry: ReportEntry) -> list[dict[str, str]]:
    """Return the curves of a training run: losses, temperatures and validations have their own
    axes.
    """
    terms = {name: plots.Line(*curve) for name, curve in entry.train.items()}
    terms.pop("grad_norm", None)
    # parameters are named by their place in the model, losses are not
    losses = {name: line for name, line in terms.items() if "." not in name}
    scales = {name: line for name, line in terms.items() if "." in name}
    parts = [line for name, line in losses.items() if not name.startswith("loss")]
    if len(parts) == 1 and len(losses) == 2:  # the only term is the loss
        losses = {name: line for name, line in losses.items() if name.startswith("loss")}
    drawn = []
    for words, lines, x_label, y_label in (
        ("loss", losses, "step", ""),
        ("temperature (logarithm)", scales, "step", ""),
        ("validation", _recall_lines(entry.validation), "epoch", "percent"),
    ):
        if lines:
            caption = f"{entry.name}: {words}"
            svg = plots.curves(lines, x_label, y_label, title=caption)
            drawn.append({"caption": caption, "svg": svg})
    return drawn


def _recall_lines(validation: dict[str, plots.Curve]) -> dict[str, plots.Line]:
    """Return R@1, 5 and 10 in one colour each, video to text dashed."""
    lines = {}
    for side, arrow in (("t2v", "t→v"), ("v2t", "v→t")):
        for colour, (key, words) in enumerate(_RECALLS.items()):
            if curve := validation.get(f"{side}_{key}"):
                lines[f"{words} {arrow}"] = plots.Line(*curve, colour=colour, dashed=side == "v2t")
    return lines


def _histograms(entry: ReportEntry) -> list[dict]:
    figures = []
    for side, words in _SIDES:
        ranks = list(entry.ranks[side])
        shares = [
            100.0 * sum(low <= r <= high for r in ranks) / max(1, len(ranks))
            for _, low, high in _BINS
        ]
        bars = [_bar(label, share) for (label, _, _), share in zip(_BINS, shares, strict=True)]
        figures.append({"caption": f"{entry.name}: {words.lower()}", "bars": bars})
    return figures


def _attributes(entries: list[ReportEntry]) -> list[dict]:
    figures = []
    for entry in entries:
        rates = next(iter(entry.metrics["attributes"].values()), {})
        bars = [_bar(words, rate["right"], rate["chance"]) for words, rate in rates.items()]
        if bars:
            figures.append({"caption": entry.name, "bars": bars})
    return figures


def _queries(report: Report) -> list[dict]:
    """Return the queries of each checkpoint; those of the best one are open."""
    shown = []
    for entry in report.entries:
        sides = []
        for side, words in _QUERIES:
            queries = [_query(query, report) for query in entry.metrics["examples"][side]]
            if queries:
                sides.append({"words": words, "queries": queries})
        if sides:
            shown.append({"name": entry.name, "is_best": entry is report.best, "sides": sides})
    return shown


def _query(query: dict, report: Report) -> dict:
    own, answers = query["video"], query["answers"][:_TILES]
    tiles = [
        _tile(answer["video"], f"{answer['score']:.3f}", answer["video"] == own, report)
        for answer in answers
    ]
    if all(answer["video"] != own for answer in answers):
        wanted = _tile(own, f"wanted, rank {query['rank']:,}", True, report)
        tiles = [wanted, *tiles[: _TILES - 1]]
    return {"text": query["text"], "rank": query["rank"], "tiles": tiles}


def _tile(video_id: str, words: str, is_right: bool, report: Report) -> dict:
    pictures = report.thumbnails.get(video_id, [])
    return {
        "video": video_id,
        "words": words,
        "right": is_right,
        "pictures": [base64.b64encode(jpeg).decode() for jpeg in pictures],
        "clip": report.clips.get(video_id, ""),
    }


def _best(values: list[float], key: str) -> float | None:
    if not values:
        return None
    return min(values) if key in ("MdR", "MnR") else max(values)
