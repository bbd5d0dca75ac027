"""The report: one self-contained HTML page, made of what the steps left on disk. Equal inputs give
equal bytes.

Nothing in the page depends on time, host or path; what does (how long steps took, the command as
typed) is a second page below `_state/` that this one shows in place when it lies beside it (see
`stages/report.py`).
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.evaluation.results import ALONE, tie_policies
from pipeline.report import plots
from pipeline.report.html_parts import (
    bar,
    cell,
    details,
    document,
    figure,
    heading,
    note,
    one,
    row,
    size,
    table,
    text,
)

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


@dataclass(frozen=True)
class ReportEntry:
    """One evaluated checkpoint. metrics: its metrics.json. ranks: {side: pessimistic ranks from 1},
    first rerank.
    """

    metrics: dict
    ranks: dict[str, Sequence[float]]
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
    """All that the page shows. thumbnails: JPEGs by video id."""

    title: str
    entries: list[ReportEntry]
    steps: list[ReportStep]
    versions: dict[str, str]
    thumbnails: dict[str, list[bytes]]


def page(report: Report) -> str:
    """Return the whole page."""
    sections = [
        ("results", "Results", _results(report)),
        ("training", "Training", _training(report.entries)),
        ("ranks", "Where the answers land", _histograms(report.entries)),
        ("attributes", "Right answers by attribute", _attributes(report.entries)),
        ("queries", "Best and worst queries", _queries(report)),
        ("steps", "Steps", _steps(report.steps)),
        ("settings", "Settings and versions", _settings(report)),
    ]
    shown = [(key, words, body) for key, words, body in sections if body]
    links = "".join(f'<a href="#{key}">{words}</a>' for key, words, _ in shown)
    bodies = "\n".join(
        f'<section id="{key}"><h2>{words}</h2>\n{body}\n</section>' for key, words, body in shown
    )
    top = f'<h1>{text(report.title)}</h1>\n<p class="lead">{_lead(report)}</p>\n<nav>{links}</nav>'
    return document(report.title, f"{top}\n{bodies}")


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
    notes = "".join(note(f"{text(name)}: {text(words)}") for name, words in speeds)
    rows = list(times)
    longest = max((seconds for _, seconds in rows), default=0) or 1
    bars = "".join(
        bar(name, 100 * seconds / longest, shown=f"{seconds:,.1f} s") for name, seconds in rows
    )
    return document(
        "How it was run",
        f"<p><code>{text(command)}</code></p>\n{note(f'{text(when)} · {text(machine)}')}\n"
        "<table"
        f' class="bars">{bars}</table>\n{note(f"{sum(s for _, s in rows):,.1f} s in all steps")}'
        f"{notes}",
        style="main { padding: 0; max-width: none; }\n",
    )


def _lead(report: Report) -> str:
    first, n = report.entries[0].metrics, len(report.entries)
    return (
        f"{n} {'checkpoint' if n == 1 else 'checkpoints'} ranked on the split"
        f" <b>{text(first['split'])}</b>: {first['texts']:,} captions, {first['videos']:,} videos."
    )


def _results(report: Report) -> str:
    rows = [
        (entry, name, values)
        for entry in report.entries
        for name, values in entry.metrics["results"].items()
    ]
    first = rows[0][2]
    keys = [key for key in first["t2v"] if key[0] == "R" and key[1:].isdigit()] + ["MdR", "MnR"]
    best = {
        (s, k): _best([v[s][k] for _, n, v in rows if n == "none"], k)
        for s, _ in _SIDES
        for k in keys
    }
    groups = [
        cell(words, "group", "first", tag="th", more=f' colspan="{len(keys)}"')
        for _, words in _SIDES
    ]
    names = [
        cell(heading(key), "" if n else "first", tag="th")
        for _ in _SIDES
        for n, key in enumerate(keys)
    ]
    heads = [
        row([cell("", tag="th"), *groups, cell("", tag="th"), cell("", tag="th")]),
        row(
            [
                cell("checkpoint", "name", tag="th"),
                *names,
                cell("Rsum", "first", tag="th"),
                cell("trained", tag="th"),
            ]
        ),
    ]
    body = [_result_row(entry, name, values, keys, best) for entry, name, values in rows]
    chance = report.entries[0].metrics["chance"]
    guesses = [
        cell(one(chance[s].get(key)), "" if n else "first")
        for s, _ in _SIDES
        for n, key in enumerate(keys)
    ]
    body.append(row([cell("chance", "name"), *guesses, cell(""), cell("")], "chance"))
    gains = [
        note(f"<b>{text(entry.name)}</b>: {text(_gain(gain))}") for entry, gain in _gains(report)
    ]
    return "\n".join([_cards(report), table(heads, body), *gains, note(_legend(rows))])


def _gains(report: Report) -> list[tuple[ReportEntry, dict]]:
    return [
        (entry, gain)
        for entry in report.entries
        for gain in entry.metrics.get("gains", {}).values()
    ]


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
        f" {text(policies)} ({tied:,} tied queries); video → text over {gallery}."
    )
    if any(name in _TRANSDUCTIVE for _, name, _ in rows):
        words += (
            " Dual softmax and query bank use other queries than the one asked: compare them with"
            " their like only."
        )
    if any(entry.published for entry, _, _ in rows):
        words += " Small: difference to the published figure."
    return words


def _cards(report: Report) -> str:
    top = max(report.entries, key=lambda entry: entry.first["t2v"]["R1"])
    values = top.first
    times = values["t2v"]["R1"] / top.metrics["chance"]["t2v"]["R1"]
    cards = [
        (f"{values['t2v']['R1']:.1f}", "%", "text → video R@1"),
        (f"{values['v2t']['R1']:.1f}", "%", "video → text R@1"),
        (f"{values['Rsum']:.1f}", "of 600", "sum of R@1, 5, 10 both ways"),
        (f"{times:.1f}", "×", "chance at text → video R@1"),
    ]
    boxes = "".join(
        f'<div class="card"><b>{number} <small>{unit}</small></b><span>{words}</span></div>'
        for number, unit, words in cards
    )
    label = (
        note(f"Of <b>{text(top.name)}</b>, the best at text → video R@1.")
        if len(report.entries) > 1
        else ""
    )
    return f'<div class="cards">{boxes}</div>{label}'


def _result_row(entry: ReportEntry, name: str, values: dict, keys: list[str], best: dict) -> str:
    plain, cells = name == "none", []
    for side, _ in _SIDES:
        for n, key in enumerate(keys):
            value = values[side][key]
            published = entry.published.get(side, {}).get(key) if plain else None
            delta = (
                f'<span class="delta">{value - published:+z.1f}</span>'
                if published is not None
                else ""
            )
            is_best = plain and value == best[side, key]
            cells.append(cell(one(value) + delta, "" if n else "first", "best" if is_best else ""))
    below = not plain and name != next(
        iter(entry.metrics["results"])
    )  # stands below the checkpoint's first row
    label = _RERANKS.get(name, f"with {name}")
    label = text(label if below else entry.name if plain else f"{entry.name} {label}")
    ends = [
        cell(one(values["Rsum"]), "first"),
        cell("" if below else _trained(entry.metrics.get("parameters"))),
    ]
    return row([cell(label, "name"), *cells, *ends], "sub" if below else "")


def _trained(parameters: dict[str, int] | None) -> str:
    """Return the share of a model's parameters that its recipe trains."""
    return f"{100 * parameters['trained'] / parameters['all']:.3g} %" if parameters else ""


def _training(entries: list[ReportEntry]) -> str:
    figures = []
    for entry in entries:
        terms = {
            name: plots.Line(*curve) for name, curve in entry.train.items() if name != "grad_norm"
        }
        recalls = _recall_lines(entry.validation)
        for words, lines, x, y in (
            ("loss", terms, "step", ""),
            ("validation", recalls, "epoch", "percent"),
        ):
            if lines:
                caption = f"<figcaption>{text(entry.name)}: {words}</figcaption>"
                figures.append(f"<figure>{caption}{plots.curves(lines, x, y)}</figure>")
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def _recall_lines(validation: dict[str, plots.Curve]) -> dict[str, plots.Line]:
    """R@1, 5 and 10 in one colour each, video to text dashed."""
    lines = {}
    for side, arrow in (("t2v", "t→v"), ("v2t", "v→t")):
        for colour, (key, words) in enumerate(_RECALLS.items()):
            if curve := validation.get(f"{side}_{key}"):
                lines[f"{words} {arrow}"] = plots.Line(*curve, colour=colour, dashed=side == "v2t")
    return lines


def _histograms(entries: list[ReportEntry]) -> str:
    figures = []
    for entry in entries:
        for side, words in _SIDES:
            ranks = list(entry.ranks[side])
            shares = [
                100.0 * sum(low <= r <= high for r in ranks) / max(1, len(ranks))
                for _, low, high in _BINS
            ]
            bars = [bar(label, share) for (label, _, _), share in zip(_BINS, shares, strict=True)]
            figures.append(figure(f"{entry.name}: {words.lower()}", bars))
    below = note("Rank of the own item, percent of queries.")
    return f'<div class="grid">{"".join(figures)}</div>\n{below}'


def _attributes(entries: list[ReportEntry]) -> str:
    rates = [
        (entry.name, next(iter(entry.metrics["attributes"].values()), {})) for entry in entries
    ]
    figures = [
        figure(name, [bar(words, r["right"], r["chance"]) for words, r in found.items()])
        for name, found in rates
        if found
    ]
    legend = (
        "Percent of text queries whose top answer has the value of the wanted video; the mark is"
        " chance. Answers that tie count by their share."
    )
    return f'<div class="grid">{"".join(figures)}</div>\n{note(legend)}' if figures else ""


def _queries(report: Report) -> str:
    blocks = []
    for n, entry in enumerate(report.entries):
        parts = []
        for side, words in (("best", "Best"), ("worst", "Worst")):
            cards = "".join(
                _query(query, report.thumbnails) for query in entry.metrics["examples"][side]
            )
            parts.append(f"<h3>{words}</h3>{cards}" if cards else "")
        blocks.append(details(entry.name, "".join(parts), is_open=n == 0) if any(parts) else "")
    return "\n".join(blocks).strip()


def _query(query: dict, thumbnails: dict[str, list[bytes]]) -> str:
    own, answers = query["video"], query["answers"][:_TILES]
    tiles = [
        _answer(a["video"], f"{a['score']:.3f}", a["video"] == own, thumbnails) for a in answers
    ]
    if all(answer["video"] != own for answer in answers):
        tiles = [
            _answer(own, f"wanted, rank {query['rank']:,}", True, thumbnails),
            *tiles[: _TILES - 1],
        ]
    return (
        f'<article class="query"><header><q>{text(query["text"])}</q><span class="rank">rank'
        f' {query["rank"]:,}</span></header><div class="answers">{"".join(tiles)}</div></article>'
    )


def _answer(video_id: str, words: str, right: bool, thumbnails: dict[str, list[bytes]]) -> str:
    sources = [base64.b64encode(jpeg).decode() for jpeg in thumbnails.get(video_id, [])]
    images = "".join(f'<img alt="" src="data:image/jpeg;base64,{source}">' for source in sources)
    box = f"<div>{images}</div>" if images else ""
    kind = "answer right" if right else "answer"
    return f'<div class="{kind}">{box}<span>{text(video_id)}</span><span>{words}</span></div>'


def _steps(steps: list[ReportStep]) -> str:
    heads = [cell("step", "name", tag="th"), cell("stage", "name", tag="th")]
    heads += [cell(words, tag="th") for words in ("ok", "damaged", "failed", "size")]
    rows = [
        row(
            [cell(text(step.name), "name"), cell(text(step.stage), "name")]
            + [cell(f"{step.counts.get(key, 0):,}") for key in ("ok", "damaged", "failed")]
            + [cell(size(step.bytes))]
        )
        for step in steps
    ]
    fallback = (
        f'<p class="fallback">Times and the command as typed are in <code>{RUN_PAGE}</code> beside'
        " this page: kept apart, so that equal runs give an equal page.</p>"
    )
    height = 112 + 28 * len(steps)
    times = f'<object data="{RUN_PAGE}" type="text/html" height="{height}">{fallback}</object>'
    return f"{table([row(heads)], rows)}\n{_failures(steps)}\n<h3>How long it took</h3>\n{times}"


def _failures(steps: list[ReportStep]) -> str:
    found = [(step.name, *failure) for step in steps for failure in step.failures]
    if not found:
        return note("No item was set aside.")
    heads = [cell(words, "name", tag="th") for words in ("step", "item", "reason", "what happened")]
    rows = [
        row([*(cell(text(value), "name") for value in failure[:3]), cell(text(failure[3]), "text")])
        for failure in found[:_FAILURES_SHOWN]
    ]
    more = (
        note(f"and {len(found) - _FAILURES_SHOWN:,} more") if len(found) > _FAILURES_SHOWN else ""
    )
    return f"<h3>Set aside</h3>{table([row(heads)], rows)}{more}"


def _settings(report: Report) -> str:
    blocks = [
        details(step.name, f"<pre>{text(json.dumps(step.options, indent=1))}</pre>")
        for step in report.steps
    ]
    return "\n".join(blocks) + note(
        " · ".join(f"{text(n)} {text(version)}" for n, version in report.versions.items())
    )


def _best(values: list[float], key: str) -> float | None:
    if not values:
        return None
    return min(values) if key in ("MdR", "MnR") else max(values)
