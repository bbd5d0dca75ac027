"""Curves: read from metrics.jsonl, drawn as SVG with equal bytes for equal numbers."""

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.report.plots import Line, curves, read_curves

LINES = [
    {"event": "train", "epoch": 1, "step": 1, "loss": 3.0, "latent": 1.0, "lr": [0.1]},
    {"event": "train", "epoch": 1, "step": 2, "loss": 2.0, "latent": 0.5, "lr": [0.1]},
    {"event": "validation", "epoch": 1, "step": 2, "model": "raw", "t2v_r1": 10.0, "best": True},
    {"event": "validation", "epoch": 1, "step": 2, "model": "ema", "t2v_r1": 12.0},
]


def test_terms_by_step_and_scores_by_epoch(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, LINES)))

    train, validation = read_curves(tmp_path / "m.jsonl")

    assert train == {"loss": ([1, 2], [3.0, 2.0]), "latent": ([1, 2], [1.0, 0.5])}
    assert validation == {"t2v_r1": ([1], [10.0]), "t2v_r1 (ema)": ([1], [12.0])}


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps(LINES[0]) + "\n{")

    with pytest.raises(DataError, match="line 2"):
        read_curves(tmp_path / "m.jsonl")


def test_equal_numbers_give_equal_bytes_without_a_date() -> None:
    lines = {
        "loss": Line([1, 2, 3], [3.0, 2.0, 1.0]),
        "other": Line([1, 2, 3], [1.0, 1.0, 2.0], dashed=True),
    }

    first, second = curves(lines, "step", "loss"), curves(lines, "step", "loss")

    assert first == second
    assert first.startswith("<svg")
    assert "dc:date" not in first


def test_a_legend_reads_row_by_row_and_takes_the_colours_of_the_page() -> None:
    names = ["one", "two", "three", "four", "five"]
    lines = {name: Line([1, 2, 3], [n, n, n]) for n, name in enumerate(names)}

    drawn = curves(lines, "step", "loss", title="<a & b>")

    places = {}
    for name in names:
        x, y = re.search(rf'x="([\d.]+)" y="([\d.]+)"[^>]*>{name}</text>', drawn).groups()
        places[name] = (round(float(y)), float(x))
    assert sorted(names, key=places.get) == names
    assert "var(--ink)" in drawn and 'aria-label="&lt;a &amp; b&gt;: one' in drawn
