"""The shipped DiffusionRet recipes: both stages of every data set, what is published of them, what
really trains.
"""

import math
import re

import pytest

from pipeline import config
from pipeline.recipes.recipe import Recipe, parse

SHIPPED = config.load(config.SHIPPED)
NAMES = [name for name in SHIPPED.recipes if name.startswith("diffusionret_")]
FIRST = [name for name in NAMES if re.search(r"_1(_published)?$", name)]
SECOND = [name for name in NAMES if re.search(r"_2(_published)?$", name)]


def clip_rate(recipe: Recipe) -> float:
    rules = [rule for rule in recipe.train.params if re.search(rule.match, "clip.visual.proj")]
    return recipe.train.optimizer.lr * math.prod(
        rule.lr_scale for rule in rules if rule.lr_scale is not None
    )


def trains(recipe: Recipe, name: str) -> bool:
    freeze = recipe.train.freeze
    return not re.search(freeze.match, name) or any(
        re.search(pattern, name) for pattern in freeze.exceptions
    )


def test_every_data_set_has_both_stages_in_both_precisions() -> None:
    sets = ("msrvtt", "lsmdc", "msvd", "activitynet", "didemo")
    kinds = [
        f"diffusionret_{s}_{n}{kind}" for s in sets for n in (1, 2) for kind in ("", "_published")
    ]

    assert set(kinds) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_the_published_loop(name: str) -> None:
    train = parse(SHIPPED.recipe(name)).train

    assert (train.optimizer.name, train.optimizer.clip_per_tensor, train.grad_clip) == (
        "bertadam",
        1.0,
        1.0,
    )
    assert (train.schedule.name, train.schedule.warmup, train.schedule.horizon_epochs) == (
        "bert_cosine",
        0.1,
        5,
    )
    assert (train.epochs, train.batch_size, train.seed_scope, train.ema.moment) == (
        5,
        128,
        "same",
        0.99,
    )
    assert train.ema.dtype == "float32"


@pytest.mark.parametrize("name", FIRST)
def test_first_stages_train_all_but_the_patch_convolution(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert recipe.options.stage == "discrimination"
    assert not trains(recipe, "clip.visual.conv1.weight") and not recipe.train.freeze.exceptions
    assert all(
        trains(recipe, part)
        for part in ("clip.visual.proj", "temporal.positions.weight", "clip.logit_scale")
    )
    assert (
        clip_rate(recipe) == pytest.approx(1e-7)
        if name.endswith("_published")
        else clip_rate(recipe) >= 1e-6
    )


@pytest.mark.parametrize("name", SECOND)
def test_second_stages_train_the_denoisers_alone_at_the_published_rate(name: str) -> None:
    recipe, options = parse(SHIPPED.recipe(name)), parse(SHIPPED.recipe(name)).options

    assert trains(recipe, "denoise_t2v.q_proj.weight") and trains(
        recipe, "denoise_v2t.decoder.0.bias"
    )
    assert not any(
        trains(recipe, part) for part in ("clip.logit_scale", "word_weight.0.weight", "temporal.x")
    )
    assert (options.stage, options.schedule, options.diffusion_steps, options.negatives) == (
        "generation", "cosine", 50, 127,
    )  # fmt: skip
    assert recipe.train.optimizer.lr == 1e-4 and all(
        rule.lr_scale is None for rule in recipe.train.params
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_published")])
def test_published_recipes_are_the_float16_runs_of_four_processes(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert recipe.options.half_weights and recipe.train.precision == "float32"
    assert (recipe.train.distributed.gather, recipe.train.expected_processes) == (
        "local_gradient",
        4,
    )
    assert recipe.train.selection_split == "test"
    assert (recipe.train.evaluation.at_first_step, recipe.train.evaluation.every_steps) == (
        True,
        150,
    )


@pytest.mark.parametrize(
    ("name", "words", "frames"), [("msrvtt", 32, 12), ("activitynet", 64, 64), ("didemo", 64, 64)]
)
def test_texts_and_videos_are_as_long_as_published(name: str, words: int, frames: int) -> None:
    for stage in (1, 2):
        options = parse(SHIPPED.recipe(f"diffusionret_{name}_{stage}")).options
        assert (options.words, options.frames) == (words, frames)


def test_second_stages_of_all_pipelines_start_from_their_first() -> None:
    pipelines = {name: p for name, p in SHIPPED.pipelines.items() if "diffusionret" in name}

    assert {
        "diffusionret-lsmdc",
        "diffusionret-didemo_published",
        "vatex-diffusionret",
    } <= pipelines.keys()
    for pipeline in pipelines.values():
        assert pipeline["steps"]["train@generation"]["init"] == "train@discrimination"
