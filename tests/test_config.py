"""pipelines.yaml: what merges, what is refused, and what the messages say."""

from pathlib import Path

import pytest

from pipeline import config, registry
from pipeline.errors import ConfigError


@pytest.fixture
def load(tmp_path):
    def write(text: str) -> config.Config:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return config.load(path)

    return write


def test_recipe_takes_over_what_it_extends_and_null_deletes(load):
    loaded = load(
        "recipes:\n"
        "  base: {model: m, options: {a: 1, b: {c: 2, d: 3}}}\n"
        "  child: {extends: base, options: {a: null, b: {c: 9}}}\n"
    )

    assert loaded.recipe("child") == {
        "name": "child",
        "model": "m",
        "options": {"b": {"c": 9, "d": 3}},
    }


def test_own_file_adds_to_the_shipped_one(load):
    loaded = load("datasets: {mine: {type: folder, root: x}}\n")

    assert {"mine", "demo"} <= loaded.datasets.keys()


def test_circle_of_extends_is_named(load):
    loaded = load("recipes: {a: {extends: b}, b: {extends: a}}\n")

    with pytest.raises(ConfigError, match="a -> b -> a"):
        loaded.recipe("a")


def test_of_very_many_names_the_nearest_are_shown(load):
    with pytest.raises(
        ConfigError, match=r"There are \d+, \S+, \S+, \S+ and others \(python cli.py list\)"
    ):
        load("{}").pipeline("qqqq")


def test_unknown_name_gets_a_suggestion(load):
    with pytest.raises(ConfigError, match=r"no pipeline called 'demmo'\n    Did you mean demo\?"):
        load("{}").pipeline("demmo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipelins: {}", r"pipelins: unknown section. Did you mean pipelines\?"),
        ("recipes: [1]", "recipes: must be a mapping"),
        ("recipes: {a: 3}", r"recipes\.a: must be a mapping, got 3"),
        ("a: [", r"own\.yaml:1:5: not valid YAML"),
        ("- 1", "not a mapping"),
        ("x: !!python/object/apply:os.system ['touch pwned']", "not valid YAML"),
    ],
)
def test_wrong_file_is_explained(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_keys_that_stand_there_twice_are_refused_with_their_lines(load):
    text = "recipes:\n  a: {model: m, train: {epochs: 5, epochs: 6}}\n  b: {}\n  a: {model: n}\n"

    with pytest.raises(ConfigError) as caught:
        load(text)

    head, fix = str(caught.value).split("\n    ")
    assert head.endswith(
        "own.yaml:2:36: 2 x key that occurs twice: epochs in line 2 (first in line 2); "
        "a in line 4 (first in line 2)"
    )
    assert fix.startswith("Only one of them would count")


def test_keys_that_a_merge_brings_may_be_given_again():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4, y: 5}\n"

    assert config.safe_yaml(text, "here") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 4, "y": 5},
    }


def test_a_key_given_twice_on_the_command_line_is_refused():
    with pytest.raises(
        ConfigError, match=r"--set compress:1:10: 1 x key that occurs twice: fps in line 1"
    ):
        config.assign({}, "compress={fps: 3, fps: 4}", "--set")


def test_file_of_nested_aliases_is_refused_quickly(load):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"

    with pytest.raises(ConfigError, match="nested aliases"):
        load(bomb)


def test_assignment_sets_nested_values_as_yaml():
    target = {"compress": {"fps": 3}}

    config.assign(target, "compress.fps=1.5", "--set")
    config.assign(target, "train.optimizer.betas=[0.9, 0.98]", "--set")

    assert target == {"compress": {"fps": 1.5}, "train": {"optimizer": {"betas": [0.9, 0.98]}}}


def test_assignment_without_value_is_refused():
    with pytest.raises(ConfigError, match="step.option=value"):
        config.assign({}, "compress.fps", "--set")


def test_dates_and_numbers_where_text_is_meant_are_text(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "datasets: {2020-01-01: {type: folder, root: 2020-01-01}}\n"
        "pipelines: {7: {dataset: 2020-01-01, steps: {compress: {}}}}\n"
    )

    loaded = config.load(own)

    assert loaded.dataset("2020-01-01")["root"] == "2020-01-01"
    assert loaded.pipeline("7")["dataset"] == "2020-01-01"


@pytest.mark.parametrize(
    "text", ["!!int foo", "!!bool x", "!!float x", "0x_", '"\\U00110000"', "1" * 5000, "!!set {a}"]
)
def test_values_that_yaml_cannot_build_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.safe_yaml(text, "here")


def test_what_came_with_the_toolkit_is_read_alike_by_both_parsers() -> None:
    for path in (config.SHIPPED, *registry.recipe_files()):
        slow = config.safe_yaml(path.read_text(encoding="utf-8"), str(path))
        assert config._read(path, is_ours=True) == config._read(path)
        assert isinstance(slow, dict)
