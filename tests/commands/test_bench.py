"""bench loader: how fast the train steps of a pipeline are fed."""

import json

import pytest
import yaml
from click.testing import CliRunner

from pipeline.commands.bench import command
from tests.feeding.frames_toy import RECIPE, SIZE, build


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A pipeline whose cache and store are made already; another without training."""
    folder = tmp_path_factory.mktemp("bench")
    build(folder / "work" / "toy")
    steps = {"store": {"stage": "frames"}, "tensors": {"frames": {"size": SIZE}}}
    content = {
        "datasets": {"toy": {"type": "caption_files", "root": str(folder / "work" / "toy")}},
        "recipes": {"tiny": {k: v for k, v in RECIPE.items() if k != "name"}},
        "pipelines": {
            "toy": {"dataset": "toy", "steps": steps | {"train@a": {"recipe": "tiny"}}},
            "none": {"dataset": "toy", "steps": steps},
        },
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def call(config, *arguments: str):
    where = ["--config", str(config), "--work", str(config.parent / "work"), "--seconds", "0.1"]
    return CliRunner().invoke(command, ["loader", *arguments, *where])


def test_every_train_step_is_measured(config):
    result = call(config, "toy", "--json", "--threads", "1")

    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)["train@a"]
    assert row["samples_per_second"] > 0 and row["mb_per_second"] > 0
    assert (row["batch"], row["source"].split()[:2]) == (8, ["tensor", "cache"])


def test_result_is_a_table_with_a_row_per_step(config):
    lines = call(config, "toy", "--step", "train@a").stdout.splitlines()

    assert lines[0].split() == ["samples/s", "samples/CPU-s", "MB/s", "batch", "read", "from"]
    assert lines[1].startswith("train@a")


@pytest.mark.parametrize("arguments", [("none",), ("toy", "--step", "tensors")])
def test_pipeline_without_such_a_step_is_a_mistake(config, arguments):
    result = call(config, *arguments)

    assert "has no train step" in str(result.exception)
