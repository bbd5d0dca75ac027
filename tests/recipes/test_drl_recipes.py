"""The shipped DRL recipes: which are the published float16 optimisation, which are float32 and
really train.
"""

import math
import re

import pytest

from pipeline import config
from pipeline.recipes.recipe import Recipe, parse

SHIPPED = config.load(config.SHIPPED)
NAMES = [name for name in SHIPPED.recipes if name.startswith("drl")]


def clip_rate(recipe: Recipe) -> float:
    rules = [rule for rule in recipe.train.params if re.search(rule.match, "clip.visual.proj")]
    return recipe.train.optimizer.lr * math.prod(
        rule.lr_scale for rule in rules if rule.lr_scale is not None
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_published")])
def test_published_recipes_optimise_float16_at_the_published_rate(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert recipe.options.half_weights and recipe.train.precision == "float32"
    assert clip_rate(recipe) == pytest.approx(1e-7)
    assert recipe.train.distributed.gather == "local_gradient"


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_published")])
def test_other_recipes_are_float32_and_do_not_leave_clip_frozen(name: str) -> None:
    recipe = parse(SHIPPED.recipe(name))

    assert not recipe.options.half_weights
    assert clip_rate(recipe) >= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_the_published_groups_and_loop(name: str) -> None:
    train = parse(SHIPPED.recipe(name)).train

    assert (train.optimizer.name, train.optimizer.clip_per_tensor, train.grad_clip) == (
        "bertadam",
        1.0,
        1.0,
    )
    assert (train.schedule.name, train.schedule.warmup, train.epochs, train.batch_size) == (
        "bert_cosine",
        0.1,
        5,
        128,
    )
    assert [
        rule.weight_decay for rule in train.params if re.search(rule.match, "x.in_proj_bias")
    ] == [0.0]
    assert all(
        rule.weight_decay is None
        for rule in train.params
        if re.search(rule.match, "clip.ln_final.weight")
    )


@pytest.mark.parametrize(
    ("name", "interaction", "cdcr", "alpha1"),
    [("drl", "wti", 3, 0.11), ("drl_wti", "wti", 0, None), ("drl_ti_cdcr", "ti", 2, 0.16), ("drl_ti", "ti", 0, None),
     ("drl_dp_cdcr", "dp", 1, 0.14), ("drl_xti", "xti", 0, None), ("drl_dp_none", "dp", 0, None)],
)  # fmt: skip
def test_rows_of_the_published_table_are_what_the_specification_says(
    name, interaction, cdcr, alpha1
) -> None:
    options = parse(SHIPPED.recipe(name)).options

    assert (options.interaction, options.cdcr) == (interaction, cdcr)
    assert alpha1 is None or (options.cdcr_alpha1, options.cdcr_alpha2, options.cdcr_lambda) == (
        alpha1,
        0.0,
        0.001,
    )
