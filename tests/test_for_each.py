"""Short entries of pipelines.yaml that stand for many."""

from pathlib import Path

import pytest

from pipeline import config
from pipeline.core.plan import Pipeline
from pipeline.errors import ConfigError
from pipeline.for_each import expand


def made(entries: dict) -> dict:
    faults: list[str] = []
    result = expand(entries, "pipelines", faults)
    assert faults == []
    return result


def faults_of(entries: dict) -> list[str]:
    faults: list[str] = []
    expand(entries, "pipelines", faults)
    return faults


def test_every_combination_becomes_an_entry_the_last_variable_fastest() -> None:
    entries = made(
        {
            "$a-$b": {
                "for_each": {"a": ["x", "y"], "b": [1, 2]},
                "dataset": "$a",
                "steps": {"s": {"n": "$b"}},
            }
        }
    )

    assert list(entries) == ["x-1", "x-2", "y-1", "y-2"]
    assert entries["y-1"] == {"dataset": "y", "steps": {"s": {"n": 1}}}


def test_values_may_bring_further_variables_of_any_type() -> None:
    entries = made(
        {
            "$a": {
                "for_each": {"a": {"x": {"opts": {"k": [1]}, "none": None}}},
                "s": "$opts",
                "t": "$none",
            }
        }
    )

    assert entries == {"x": {"s": {"k": [1]}, "t": None}}


def test_variables_are_filled_into_texts_and_keys_and_a_double_dollar_is_one() -> None:
    entries = made({"$a": {"for_each": {"a": ["x"]}, "train@$a": ["${a}_1/$a.mp4", "$$a"]}})

    assert entries == {"x": {"train@x": ["x_1/x.mp4", "$a"]}}


def test_a_variable_without_values_makes_nothing() -> None:
    assert made({"$a": {"for_each": {"a": {}}}, "other": {"steps": {}}}) == {"other": {"steps": {}}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"for_each": [1]}, "pipelines.$a.for_each: must be a mapping"),
        ({"for_each": {"a": ["x", "x"]}}, "pipelines.$a.for_each.a: must list different values"),
        ({"for_each": {"a": "x"}}, "pipelines.$a.for_each.a: must list different values"),
        (
            {"for_each": {"a": ["x"]}, "s": "$aa"},
            "pipelines.$a: there is no variable $aa. Did you mean a?",
        ),
        (
            {"for_each": {"a": ["x"], "b": [1, 2]}},
            "makes x twice; its name must hold every variable of for_each.",
        ),
        (
            {"for_each": {"a": list(range(400)), "b": list(range(400))}},
            "stands for 160,000 entries",
        ),
    ],
)
def test_mistakes_are_named_by_their_path(entry: dict, message: str) -> None:
    assert any(message in fault for fault in faults_of({"$a": entry}))


def test_an_entry_that_is_there_already_is_not_made_again() -> None:
    assert faults_of({"x": {}, "$a": {"for_each": {"a": ["x"]}}}) == [
        "pipelines.$a: makes x a second time."
    ]


def test_mistake_in_a_file_is_a_configuration_error_with_the_name_of_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.yaml").write_text("pipelines: {$a: {for_each: {a: [x]}, steps: {s: $b}}}")

    with pytest.raises(ConfigError, match=r"own.yaml: pipelines.\$a: there is no variable \$b"):
        config.load(tmp_path / "own.yaml")


def test_recipe_may_be_extended_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("pipelines: {}")
    loaded = config.load(tmp_path / "own.yaml")

    recipe = loaded.resolve("recipes", {"extends": "tiny_dual", "options": {"latent_dim": 7}})

    assert recipe["name"] == "tiny_dual"
    assert recipe["options"] == loaded.recipe("tiny_dual")["options"] | {"latent_dim": 7}


def test_every_shipped_pipeline_is_valid_without_data(tmp_path: Path) -> None:
    loaded = config.load()

    opened = [Pipeline.open(loaded, name, tmp_path) for name in loaded.pipelines]

    assert len(opened) == len(loaded.pipelines) >= 80
