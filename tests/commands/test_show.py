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


def test_what_depends_on_the_data_says_so(capsys: pytest.CaptureFixture) -> None:
    assert (
        shown(capsys, "dual_encoding_pp")
        .splitlines()[-1]
        .startswith("# parameters: known with the data")
    )


def test_what_is_shown_is_a_recipe(capsys: pytest.CaptureFixture) -> None:
    assert parse(yaml.safe_load(shown(capsys, "tiny_dgl"))).model == "dgl"
