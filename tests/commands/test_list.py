"""list, show and explain-option: what there is, and what it means."""

import json
import re

import pytest
import yaml

import cli
from pipeline import config
from pipeline.commands._fields import every_field


def said(capsys: pytest.CaptureFixture, *words: str, code: int = 0) -> str:
    assert cli.main(list(words)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_pipelines_are_a_table_that_counts_each_once(capsys: pytest.CaptureFixture) -> None:
    lines = said(capsys, "list", "pipelines").splitlines()
    rows = lines[1 : lines.index("")]

    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    counts = [int(number) for row in rows for number in re.findall(r"(?<=\s)\d+(?=\s)", row)]
    assert sum(counts) == len(config.load().pipelines)
    assert {row.split()[-1] for row in rows} <= config.load().pipelines.keys()
    assert next(row for row in rows if row.startswith("mine ")).endswith(" mine-drl")


def test_words_choose_and_an_unknown_one_is_an_error(capsys: pytest.CaptureFixture) -> None:
    names = [
        line.split()[0]
        for line in said(capsys, "list", "pipelines", "msvd", "drl").split("\n")
        if line
    ]

    assert "msvd-drl_wti" in names and all("msvd" in n and "drl" in n for n in names)
    assert "no recipe is called 'zzz'" in said(capsys, "list", "recipes", "zzz", code=2)


def test_each_recipe_says_what_it_is_and_what_was_published(capsys: pytest.CaptureFixture) -> None:
    lines = json.loads(said(capsys, "list", "recipes", "--json"))

    assert lines["drl_wti"] == "weighted words and frames; MSR-VTT 9k 46.6 / 45.4"
    assert lines["drl_b16_wti"] == "drl_wti with backbone ViT-B/16"
    assert [name for name, line in lines.items() if not line or line.startswith("model ")] == []
    assert "about" not in config.load().recipe("drl_wti")


def test_show_explains_every_field_and_stays_yaml(capsys: pytest.CaptureFixture) -> None:
    explained, plain = said(capsys, "show", "drl"), said(capsys, "show", "drl", "--plain")

    assert yaml.safe_load(explained) == yaml.safe_load(plain)
    assert "  # dropout and noise of the processes\n  seed_scope: same" in explained
    assert "    # learning rate before the schedule" in explained
    assert "published R@1, t2v / v2t: MSR-VTT 9k 47.6 / 45.1" in explained
    assert max(map(len, explained.splitlines()[:-1])) <= 80


def test_every_option_has_a_meaning_and_is_found(capsys: pytest.CaptureFixture) -> None:
    assert [f"{f.owner}: {f.path}" for f in every_field() if not f.meaning] == []
    assert "dropout and noise of the processes" in said(
        capsys, "explain-option", "train.seed_scope"
    )
    assert "train.optimizer.betas" in said(capsys, "explain-option", "betas")
    assert "Did you mean seed_scope?" in said(capsys, "explain-option", "seedscop", code=2)
