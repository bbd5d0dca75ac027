"""Recipes: complete, checked without torch, every mistake named."""

import subprocess
import sys

import pytest

from pipeline.errors import ConfigError
from pipeline.recipes.recipe import parse

PUBLISHED = {
    "name": "dual_encoding_pp",
    "model": "dual_encoding",
    "options": {"latent_dim": 1536, "alpha": 0.6},
    "train": {
        "epochs": 30,
        "batch_size": 128,
        "grad_clip": 2.0,
        "select": "rsum",
        "stop_after": 10,
        "optimizer": {"name": "adam", "lr": 1.0e-4},
        "schedule": {
            "name": "plateau",
            "on_best": 0.99,
            "factor": 0.5,
            "wait": 3,
            "reload_best": True,
        },
    },
}


def test_resolved_recipe_parses_to_itself():
    once = parse(PUBLISHED)

    assert parse(once.resolve()) == once
    assert once.resolve()["train"]["schedule"]["wait"] == 3


def test_all_mistakes_of_a_recipe_are_reported_together():
    wrong = {
        "name": "x",
        "model": "dual_encoding",
        "options": {"latent_dmi": 3},
        "train": {"epochs": 0, "select": "t2v_r2"},
    }

    with pytest.raises(ConfigError) as caught:
        parse(wrong)

    message = str(caught.value)
    assert "recipes.x.options.latent_dmi: unknown option. Did you mean latent_dim?" in message
    assert "recipes.x.train.epochs" in message
    assert "recipes.x.train.select" in message
    assert "recipes.x.train.optimizer: required" in message


@pytest.mark.parametrize("pattern", ["(", "[a", "*"])
def test_pattern_that_does_not_compile_is_a_mistake_of_the_recipe(pattern):
    wrong = PUBLISHED | {
        "train": PUBLISHED["train"] | {"params": [{"match": pattern, "lr_scale": 0.1}]}
    }

    with pytest.raises(ConfigError, match="not a regular expression"):
        parse(wrong)


def test_freeze_is_written_with_except():
    train = PUBLISHED["train"] | {"freeze": {"match": r"^clip\.", "except": ["prompt"]}}
    recipe = parse(PUBLISHED | {"train": train})

    assert recipe.train.freeze.exceptions == ["prompt"]
    assert parse(recipe.resolve()) == recipe


@pytest.mark.parametrize(("values", "words"), [
    ("dual_encoding_pp", "a recipe is a mapping"),
    ({"name": "x", "modle": "drl"}, "Did you mean model?"),
    ({"name": "x"}, "required"),
    ({"name": "x", "model": "dual_encodin"}, "Did you mean dual_encoding?"),
])  # fmt: skip
def test_what_is_no_recipe_is_refused(values, words):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        parse(values)


def test_parsing_a_recipe_does_not_import_torch():
    code = f"""if True:
        import sys
        from pipeline.recipes.recipe import parse
        parse({PUBLISHED!r})
        assert "torch" not in sys.modules
    """

    subprocess.run([sys.executable, "-c", code], check=True)
