"""The train stage trains both stages of DiffusionRet, one from the other, with averages; what it
refuses, and why.
"""

import json
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import model_file
from pipeline.checkpoints.toolkit_file import TRAINING, read_format
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.errors import ConfigError, DataError, Interrupted
from pipeline.stages.evaluate import Stage as Evaluate
from pipeline.stages.train import Stage
from tests.feeding import frames_toy
from tests.trees import tree

OPTIONS = {"backbone": "tiny", "frames": 3, "words": 12, "temporal_layers": 1}
FIRST = {"model": "diffusion_ret", "options": OPTIONS | {"stage": "discrimination"}}
SECOND = {
    "model": "diffusion_ret",
    "options": (
        OPTIONS | {"diffusion_steps": 5, "negatives": 5, "t2v_candidates": 4, "v2t_candidates": 4}
    ),
}
DENOISERS = {"freeze": {"match": ".", "except": ["^denoise_"]}, "params": []}


def first(**train: object) -> dict:
    return frames_toy.recipe(init={"take": "clip"}, epochs=1, **train) | FIRST


def second(options: dict | None = None, **train: object) -> dict:
    values = {"epochs": 2, "ema": {"moment": 0.8}} | DENOISERS | train
    return frames_toy.recipe(**values) | SECOND | {"options": SECOND["options"] | (options or {})}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    """Frames and captions, and `init`: a first stage trained on them for an epoch."""
    folder = tmp_path_factory.mktemp("diffusion")
    made = frames_toy.build(folder)
    train(made, folder / "first", frames_toy.recipe(epochs=1, ema={"moment": 0.8}) | FIRST)
    return made | {"init": Artefact("checkpoint", folder / "first", content="first")}


@pytest.fixture(scope="module")
def trained(inputs: dict) -> Path:
    out = inputs["init"].path.parent / "second"
    train(inputs, out, second())
    return out


def train(inputs: dict, out: Path, values: dict) -> dict:
    given = {name: inputs.get(name) for name in Stage.needs}
    settings = {"recipe": values, "threads": 1, "tensorboard": False}
    return run(Stage(Stage.Options(**settings), given, out), "train", Settings(jobs=1))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return model_file.load_model(folder)[0].state_dict()


def test_only_denoisers_differ_from_the_first_stage(inputs: dict, trained: Path) -> None:
    before, after = weights(inputs["init"].path), weights(trained)

    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.partition(".")[0] for name in after.keys() - before.keys()} == {
        "denoise_t2v",
        "denoise_v2t",
    }


def test_weights_and_their_averages_are_both_judged_and_reported(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]

    judged = [(line["epoch"], line["model"]) for line in lines if line["event"] == "validation"]

    assert judged == [(1, "ema"), (1, "raw"), (2, "ema"), (2, "raw")]
    assert {"denoise_t2v", "denoise_v2t", "t2v", "v2t", "loss"} <= lines[0].keys()


def test_a_training_that_was_stopped_ends_with_the_same_bytes(
    inputs: dict, trained: Path, monkeypatch
) -> None:
    from pipeline.core import stop

    out, asked = inputs["init"].path.parent / "stopped", iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda: next(asked, True))
        with pytest.raises(Interrupted):
            train(inputs, out, second())

    train(inputs, out, second())

    assert tree(out / "checkpoints") == tree(trained / "checkpoints")


def test_last_keeps_the_averages_of_what_trains_alone(trained: Path) -> None:
    state = read_format(trained / "checkpoints/last.pt", TRAINING)

    assert state["ema"] and {name.partition("_")[0] for name in state["ema"]} <= {
        "denoise",
        "clip.logit",
    }


def test_both_rankings_are_reported(inputs: dict, trained: Path, tmp_path: Path) -> None:
    from pipeline.evaluation import results

    given = {name: inputs.get(name) for name in Evaluate.needs} | {
        "checkpoints": [Artefact("checkpoint", trained)]
    }
    run(Evaluate(Evaluate.Options(split="test"), given, tmp_path), "evaluate", Settings(jobs=1))

    table = results.table(tmp_path)
    assert "second: sampling, against the similarity alone: text -> video R@1" in table


def test_a_second_stage_from_a_clip_alone_is_refused(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a trained first stage") as error:
        train(inputs, tmp_path, second(init={"take": "clip"}))
    assert "recipe" in str(error.value.where) and "init:" in error.value.fix


def test_a_second_stage_from_nothing_is_refused(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a trained first stage"):
        train({name: made for name, made in inputs.items() if name != "init"}, tmp_path, second())


def test_a_first_stage_of_another_shape_is_refused_by_name(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: temporal\.transformer\.resblocks\.1\."):
        train(inputs, tmp_path, second({"temporal_layers": 2}))


def test_a_batch_smaller_than_the_negatives_is_refused_before_training(
    inputs: dict, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="8 pairs for 8 negatives") as error:
        train(inputs, tmp_path, second({"negatives": 8}))
    assert error.value.where == "train.batch_size" and "negatives to 7" in error.value.fix


def test_a_last_batch_smaller_than_the_negatives_is_refused_too(
    inputs: dict, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="4 pairs for 5 negatives") as error:
        train(inputs, tmp_path, second(drop_last=False))
    assert error.value.where == "train.drop_last: false"
