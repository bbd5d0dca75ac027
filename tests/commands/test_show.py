"""show: a recipe in full, and how many of its parameters train; built without memory."""

import pytest
import yaml

import cli
from pipeline.recipes.recipe import parse

PUBLISHED = {
    "dgl_msrvtt": "parameters: 160,852,481, of which 9,575,168 train (5.953 %)",
    "dgl_msrvtt_b16": "parameters: 159,195,905, of which 9,575,168 train (6.015 %)",
    "dgl_vatex": "parameters: 152,104,705, of which 827,392 train (0.544 %)",
    "dgl_activitynet_transformer": "parameters: 162,769,409, of which 11,492,096 train (7.060 %)",
    "dgl_msvd_full": "parameters: 160,852,481, of which 160,852,481 train (100.000 %)",
}


def shown(capsys: pytest.CaptureFixture, recipe: str) -> str:
    assert cli.main(["show", recipe]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_published_counts_come_out(recipe: str, capsys: pytest.CaptureFixture) -> None:
    assert shown(capsys, recipe).splitlines()[-1] == f"# {PUBLISHED[recipe]}"


@pytest.mark.parametrize(
    ("recipe", "more", "count"),
    [
        ("dual_encoding_pp", [], "69,176,796"),
        ("de_row_c", [], "57,377,244"),
        ("hybrid_space", [], "69,168,604"),
        ("dual_encoding_2019", [], "79,136,220"),
        ("hybrid_space", ["--words", "7812"], "69,171,152"),  # a word vector, a column of 2,048
    ],
)
def test_models_of_words_are_counted_at_the_sizes_that_are_said(
    recipe: str, more: list[str], count: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["show", recipe, *more]) == 0

    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"# parameters: {count}, of which {count} train (100.000 %)")
    assert "512 tags" in line and "numbers per frame" in line


def test_what_is_shown_is_a_recipe(capsys: pytest.CaptureFixture) -> None:
    assert parse(yaml.safe_load(shown(capsys, "tiny_dgl"))).model == "dgl"
