"""What ships in pipelines.yaml: every recipe is valid, every pipeline says what it needs when nothing is there."""

import json

import pytest

import cli
from pipeline import config
from pipeline.training.recipe import parse

SHIPPED = config.load(config.SHIPPED)
CAPTION_FILES = [n for n, pipeline in SHIPPED.pipelines.items() if str(pipeline["dataset"]).startswith("msrvtt10k")]


@pytest.mark.parametrize("name", SHIPPED.recipes)
def test_recipe_is_valid_and_resolves_to_itself(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert parse(recipe.resolved()) == recipe


@pytest.mark.parametrize("name", SHIPPED.pipelines)
def test_pipeline_is_wired_and_its_recipes_exist(name: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    assert cli.main(["run", name, "--dry-run"]) == 0

    steps = SHIPPED.pipeline(name)["steps"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[: len(steps)]] == list(steps)


@pytest.mark.parametrize("name", CAPTION_FILES)
def test_pipeline_without_data_names_every_missing_input(name: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    cli.main(["run", name, "--dry-run", "--json"])

    missing = json.loads(capsys.readouterr().out)["missing"]
    assert "train.caption.txt" in missing["dataset"]
    assert missing["features.path"].startswith("data/msrvtt10k/FeatureData/resnext101-resnet152: there is no such")
    assert all("\n    " in what for what in missing.values())


@pytest.mark.parametrize("name", CAPTION_FILES)
def test_pipeline_without_data_ends_with_4(name: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    assert cli.main(["run", name]) == 4
    assert "there is no such" in capsys.readouterr().err


@pytest.mark.parametrize(("row", "alpha", "reload", "both_ways"), [
    ("a", 0.2, False, True), ("b", 0.2, True, True), ("c", 0.2, True, False),
    ("d", 0.2, True, True), ("e", 0.2, True, False), ("f", 0.2, True, False),
])  # fmt: skip
def test_rows_of_the_paper_are_what_the_specification_establishes(row, alpha, reload, both_ways) -> None:
    recipe = parse(SHIPPED.recipe(f"de_row_{row}"))

    options, train = recipe.options, recipe.train
    assert (options.alpha, options.scaling, options.pooling) == (alpha, "shifted_max", "padded")
    assert (options.concept_double_pass, train.clean_captions, train.evaluation.chunk) == (True, False, 2000)
    assert (options.video.bidirectional, options.text.bidirectional) == (both_ways, True)
    assert (train.select, train.tie, train.stop_after, train.epochs) == ("t2v_rsum", "last", 10, 30)
    assert (train.schedule.reload_best, train.schedule.wait, train.schedule.on_best) == (reload, 3, 0.99)


def test_head_of_the_published_configuration() -> None:
    recipe = parse(SHIPPED.recipe("dual_encoding_pp"))

    assert (recipe.options.alpha, recipe.options.latent_dim, recipe.train.select) == (0.6, 1536, "rsum")
    assert (recipe.options.video.kernels, recipe.options.video.filters) == ([2, 3, 4, 5], [512] * 4)
    assert (recipe.options.text.kernels, recipe.options.text.filters) == ([2, 3, 4], [512] * 3)
    assert (recipe.train.optimizer.lr, recipe.train.batch_size, recipe.train.grad_clip) == (1e-4, 128, 2.0)
    assert (recipe.options.pooling, recipe.train.clean_captions) == ("masked", True)
