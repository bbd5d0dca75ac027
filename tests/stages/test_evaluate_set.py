"""`evaluate --set` ranks a checkpoint with another recipe, and search follows it."""

import json
from pathlib import Path

import pytest

import cli
from tests.core.test_seeds import run, written


def test_a_recipe_is_changed_for_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = written(tmp_path, {"recipe": "smallest_clip"})
    made = tmp_path / "work" / "tiny"
    assert run(config) == 0

    def evaluate(name: str, *more: str) -> dict:
        shared = f"--in {made}/train@clip --tensors {made}/tensors --annotations tiny"
        code = cli.main(
            f"evaluate {shared} --out {tmp_path / name} --config {config}".split() + list(more)
        )
        assert code == 0, capsys.readouterr().err
        return json.loads((tmp_path / name / "train@clip" / "metrics.json").read_text())

    plain = evaluate("plain")
    changed = evaluate("changed", "--set", "options.words=4", "--set", "options.frames=2")
    assert changed["set"] == ["options.words=4", "options.frames=2"] and "set" not in plain
    assert changed["results"] != plain["results"]

    capsys.readouterr()
    for name, words in (("plain", False), ("changed", True)):
        results = tmp_path / name / "train@clip"
        arguments = [f"{made}/train@clip", "a red circle moves left", "--videos", str(results)]
        assert cli.main(["search", *arguments, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["results"]) > 1, words

    for wrong, told in (
        ("optoins.words=4", "'optoins' is no part of a recipe"),
        ("options.wordz=4", "Did you mean words?"),
        ("options.words", "is not of the form"),
    ):
        shared = f"evaluate --in {made}/train@clip --tensors {made}/tensors --annotations tiny"
        arguments = [*shared.split(), "--out", str(tmp_path / "x"), "--config", str(config)]
        assert cli.main([*arguments, "--set", wrong]) == 2
        assert told in capsys.readouterr().err
