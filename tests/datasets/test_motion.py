"""On the demo's corpus and by its recipes: the order of frames is learnt by what can see it, not by
their mean.

Every second clip is the time reversal of the one before, so the mean of the frames is right about
the direction of a motion in half of the clips at most.
"""

import json
from pathlib import Path

import pytest
import yaml

import cli
from pipeline import config

pytestmark = pytest.mark.slow

STEPS = (
    "synthesize",
    "compress",
    "frames",
    "tensors",
    "backbone",
    "train@sequence",
)
CHANCE = 1 / 64


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """metrics.json of each trained model of the demo's steps above."""
    folder = tmp_path_factory.mktemp("motion")
    shipped = yaml.safe_load(config.SHIPPED.read_text())["pipelines"]["demo"]["steps"]
    steps = {name: shipped[name] for name in STEPS} | {
        "tensors": {"frames": {"size": 64}},
        "evaluate": {},
    }
    chosen = folder / "motion.yaml"
    chosen.write_text(
        yaml.safe_dump(
            {"pipelines": {"motion": {"dataset": "demo", "steps": steps}}}, sort_keys=False
        )
    )
    work = folder / "work"

    assert (
        cli.main(["run", "motion", "--config", str(chosen), "--work", str(work), "--jobs", "1"])
        == 0
    )

    found = (work / "motion" / "evaluate").glob("*/metrics.json")
    return {path.parent.name: json.loads(Path(path).read_text()) for path in found}


def motion(metrics: dict) -> float:
    return metrics["attributes"]["none"]["motion"]["right"]


def test_a_sequence_of_frames_tells_motions_apart_and_their_mean_does_not(
    results: dict[str, dict],
) -> None:
    assert motion(results["train@sequence"]) > 50 > motion(results["backbone"])
    assert motion(results["train@sequence"]) > motion(results["backbone"]) + 10


@pytest.mark.parametrize("name", ["backbone", "train@sequence"])
def test_every_model_is_five_times_better_than_chance(name: str, results: dict[str, dict]) -> None:
    assert results[name]["results"]["none"]["t2v"]["R1"] > 5 * 100 * CHANCE
