"""The train stage tunes prompts: small checkpoints, the same end after a stop, and an evaluation
that finds them.
"""

from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import model_file, partial
from pipeline.checkpoints.toolkit_file import find_checkpoint
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.errors import Interrupted
from pipeline.stages.evaluate import Stage as Evaluate
from pipeline.stages.train import Stage
from tests.feeding import frames_toy
from tests.trees import tree

DGL = frames_toy.recipe(
    freeze={"match": r"^clip\."}, init={"take": "clip"}, params=[], epochs=3
) | {
    "model": "dgl",
    "options": {"backbone": "tiny", "frames": 3, "words": 12, "layers": 2, "half_rounding": False},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    """Frames and captions, and `init`: a CLIP trained on them for an epoch."""
    folder = tmp_path_factory.mktemp("dgl")
    made = frames_toy.build(folder)
    train(made, folder / "backbone", frames_toy.recipe(epochs=1))
    return made | {"init": Artefact("checkpoint", folder / "backbone", content="backbone")}


def train(inputs: dict, out: Path, values: dict = DGL, **options: object) -> dict:
    given = {name: inputs.get(name) for name in Stage.needs}
    settings = {"recipe": values, "threads": 1, "tensorboard": False} | options
    return run(Stage(Stage.Options(**settings), given, out), "train", Settings(jobs=1))


@pytest.fixture(scope="module")
def tuned(inputs: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = inputs["init"].path.parent / "tuned"
    train(inputs, out)
    return out


def test_both_checkpoints_hold_only_what_trains(inputs: dict, tuned: Path) -> None:
    whole = inputs["init"].path / "checkpoints"

    for name in ("best.pt", "last.pt"):
        assert (tuned / "checkpoints" / name).stat().st_size < (whole / name).stat().st_size / 5


def test_the_backbone_is_that_of_the_start_to_the_last_bit(inputs: dict, tuned: Path) -> None:
    start = partial.read_model(find_checkpoint(inputs["init"].path))["weights"]
    end = model_file.load_model(tuned)[0].state_dict()

    same = {
        name for name in start if name.startswith("clip.") and torch.equal(start[name], end[name])
    }

    assert same == {name for name in start if name.startswith("clip.")}


def test_a_training_that_was_stopped_ends_with_the_same_bytes(
    inputs: dict, tuned: Path, monkeypatch
) -> None:
    from pipeline.core import stop

    out, asked = inputs["init"].path.parent / "stopped", iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda: next(asked, True))
        with pytest.raises(Interrupted):
            train(inputs, out)

    train(inputs, out)

    assert tree(out / "checkpoints") == tree(tuned / "checkpoints")


def test_an_evaluation_says_how_much_was_trained(inputs: dict, tuned: Path, tmp_path: Path) -> None:
    given = {name: inputs.get(name) for name in Evaluate.needs} | {
        "checkpoints": [Artefact("checkpoint", tuned)]
    }
    run(Evaluate(Evaluate.Options(split="test"), given, tmp_path), "evaluate", Settings(jobs=1))

    from pipeline.evaluation import results

    (metrics,) = results.read_all(tmp_path)
    model = model_file.load_model(tuned)[0]
    everything, trained = (
        sum(p.numel() for p in part.parameters()) for part in (model, model.prompts)
    )
    assert metrics["parameters"] == {"all": everything, "trained": trained}
    header, row = results.table(tmp_path).splitlines()[1:3]
    assert header.endswith("Rsum   trained")
    assert row.endswith(f" {100 * trained / everything:.3g} %")
