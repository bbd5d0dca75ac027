"""What ships in pipelines.yaml: every recipe is valid, every pipeline says what it needs when
nothing is there.
"""

import json
from pathlib import Path

import pytest

import cli
from pipeline import config
from pipeline.commands._download_sources import source_of
from pipeline.core.plan import Pipeline
from pipeline.core.status import missing_inputs
from pipeline.datasets.base import open_dataset
from pipeline.recipes.recipe import parse

SHIPPED = config.load(config.SHIPPED)
SETS = (
    "msrvtt-9k",
    "msrvtt-7k",
    "msrvtt-full",
    "msrvtt-1kb",
    "msvd",
    "lsmdc",
    "activitynet",
    "didemo",
    "vatex",
    "mine",
)
ONE_OF_EACH_KIND = (
    "demo",
    "msrvtt-dual-encoding-rows",
    "msrvtt-centerclip",
    "lsmdc-fetch",
    "mine-fetch",
    "msvd-dual_encoding_2019",
    "vatex-de_row_d",
    "centerclip-lsmdc_01",
    "dgl-activitynet",
    "diffusionret-didemo",
    "didemo-diffusionret",
    "activitynet-drl",
    "mine-drl_zero_shot",
)
CAPTION_FILES = [
    n
    for n, pipeline in SHIPPED.pipelines.items()
    if str(pipeline["dataset"]).startswith("msrvtt10k")
]


@pytest.mark.parametrize("name", SHIPPED.recipes)
def test_recipe_is_valid_and_resolves_to_itself(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert parse(recipe.resolve()) == recipe


def recipes_of(pipeline: dict) -> set[str]:
    """Names of the recipes that a pipeline trains or, without training, evaluates."""
    named = [(step or {}).get("recipe") for step in pipeline["steps"].values()]
    given = str((pipeline["steps"].get("evaluate") or {}).get("in", ""))
    trained = {
        recipe["extends"] if isinstance(recipe, dict) else recipe for recipe in named if recipe
    }
    return trained | ({Path(given).name} if given.startswith("data/imported/") else set())


def test_every_published_recipe_is_in_a_pipeline_of_every_data_set() -> None:
    used: dict[str, set[str]] = {name: set() for name in SHIPPED.recipes}
    for pipeline in SHIPPED.pipelines.values():
        for recipe in recipes_of(pipeline):
            used[recipe].add(str(pipeline["dataset"]))

    # the paragraphs' words and frames, which the pipelines of ActivityNet and DiDeMo set themselves
    assert {name for name, sets in used.items() if not sets and not name.startswith("tiny_")} == {
        "drl_long", "drl_long_published", "clip4clip_long", "clip4clip_long_published",
    }  # fmt: skip
    published = {name: sets for name, sets in used.items() if not name.startswith("tiny_")}
    assert [n for n, sets in published.items() if "mine" in sets and not set(SETS) <= sets] == []
    # what is not for every data set: the demo, and numbered scripts that repeat another recipe on
    # their own
    rest = [
        name
        for name, sets in used.items()
        if sets and "mine" not in sets and not name.startswith("tiny_")
    ]
    assert {name.partition("_")[0] for name in rest} == {"centerclip", "diffusionret"}


def test_every_data_set_is_in_a_pipeline() -> None:
    named = {str(pipeline["dataset"]) for pipeline in SHIPPED.pipelines.values()}

    assert SHIPPED.datasets.keys() == named


def test_every_pipeline_says_without_data_which_files_go_where(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    for name in SHIPPED.pipelines:
        pipeline = Pipeline.open(SHIPPED, name, tmp_path / "work")
        missing = missing_inputs(pipeline, source_of)
        expected = [
            str(file)
            for file in open_dataset(pipeline.dataset).expected_files()
            if file.kind == "annotations"
        ]
        assert all(file in missing["dataset"].split("\n    ") for file in expected), name
        assert name == "demo" or expected
        assert all(
            "; from: " in what
            for key, what in missing.items()
            if not key.startswith(("dataset", "fetch."))
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_dry_run_shows_every_step(name: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    assert cli.main(["run", name, "--dry-run"]) == 0

    steps = SHIPPED.pipeline(name)["steps"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[: len(steps)]] == list(
        steps
    )


@pytest.mark.parametrize("name", CAPTION_FILES)
def test_pipeline_without_data_names_every_missing_input(
    name: str, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)

    cli.main(["run", name, "--dry-run", "--json"])

    missing = json.loads(capsys.readouterr().out)["missing"]
    assert "train.caption.txt" in missing["dataset"]
    assert missing["features.path"].startswith(
        "data/msrvtt10k/FeatureData/resnext101-resnet152: there is no such"
    )
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
def test_rows_of_the_paper_are_what_the_specification_establishes(
    row, alpha, reload, both_ways
) -> None:
    recipe = parse(SHIPPED.recipe(f"de_row_{row}"))

    options, train = recipe.options, recipe.train
    assert (options.alpha, options.scaling, options.pooling) == (alpha, "shifted_max", "padded")
    assert (options.concept_double_pass, train.clean_captions, train.evaluation.chunk) == (
        True,
        False,
        2000,
    )
    assert (options.video.bidirectional, options.text.bidirectional) == (both_ways, True)
    assert (train.select, train.tie, train.stop_after, train.epochs) == ("t2v_rsum", "last", 10, 30)
    assert (train.schedule.reload_best, train.schedule.wait, train.schedule.on_best) == (
        reload,
        3,
        0.99,
    )


def test_head_of_the_published_configuration() -> None:
    recipe = parse(SHIPPED.recipe("dual_encoding_pp"))

    assert (recipe.options.alpha, recipe.options.latent_dim, recipe.train.select) == (
        0.6,
        1536,
        "rsum",
    )
    assert (recipe.options.video.kernels, recipe.options.video.filters) == ([2, 3, 4, 5], [512] * 4)
    assert (recipe.options.text.kernels, recipe.options.text.filters) == ([2, 3, 4], [512] * 3)
    assert (recipe.train.optimizer.lr, recipe.train.batch_size, recipe.train.grad_clip) == (
        1e-4,
        128,
        2.0,
    )
    assert (recipe.options.pooling, recipe.train.clean_captions) == ("masked", True)


@pytest.mark.parametrize("name", ["msvd-clip4clip", "didemo-dgl_msrvtt", "centerclip-lsmdc_01"])
def test_benchmarks_of_3_fps_are_compressed_as_published(name: str) -> None:
    published = {"frame_rule": "published", "size_rule": "clip4clip", "preset": "medium"}

    assert SHIPPED.pipelines[name]["steps"]["compress"].items() >= published.items()


@pytest.mark.parametrize("name", ["mine-clip4clip", "msvd-drl", "mine-centerclip_zero_shot"])
def test_other_videos_keep_their_times_and_their_shape(name: str) -> None:
    assert SHIPPED.pipelines[name]["steps"]["compress"].keys() == {"fps", "short_side"}


@pytest.mark.parametrize(
    "name, fps",
    [("drl", 1), ("diffusionret_msrvtt_2", 1), ("clip4clip", 1), ("centerclip_b6_4", 3)],
)
def test_recipes_say_how_many_frames_a_second_they_read(name: str, fps: int) -> None:
    assert parse(SHIPPED.recipe(name)).train.frames.fps == fps
