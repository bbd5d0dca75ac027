"""A training of another program goes on here: published file -> import-checkpoint -> train with
init: {go_on: true}.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cli
from models.centerclip import published as centerclip
from models.centerclip.published_training import export_optimizer, our_names, parameter_order
from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.toolkit_file import TRAINING, read_format
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.errors import ConfigError, DataError
from pipeline.stages.train import Stage
from pipeline.training.moments import read
from pipeline.training.optimizer import parameter_groups
from tests.feeding import frames_toy

ADAMW = {"optimizer": {"name": "adamw", "lr": 1e-3}}
BERTADAM = {"optimizer": {"name": "bertadam", "lr": 1e-3, "clip_per_tensor": 1.0}}
FILES = {"ckpt.pth.tar": (ADAMW, {}), "pytorch_model.bin.1": (BERTADAM, {"padding": "zero"})}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    return frames_toy.build(tmp_path_factory.mktemp("goes_on"))


def recipe(train: dict, options: dict, **more: object) -> dict:
    values = frames_toy.recipe(selection_split="none", **train, **more)
    return values | {"options": values["options"] | options}


def train(inputs: dict, out: Path, values: dict, init: Path | None = None) -> Path:
    given = {name: inputs.get(name) for name in Stage.needs}
    given["init"] = Artefact("checkpoint", init, content=str(init)) if init else None
    run(
        Stage(Stage.Options(recipe=values, threads=1, tensorboard=False), given, out),
        "train",
        Settings(jobs=1),
    )
    return out


def moments(trained: Path) -> tuple[dict, int]:
    """The optimizer state of a training by parameter, and its steps."""
    last = read_format(trained / "checkpoints/last.pt", TRAINING)
    model, info = model_file.load_model(trained)
    groups = parameter_groups(model.named_parameters(), info.recipe.train.params, 0.0)
    names = [name for group in groups for name in group["names"]]
    return {names[n]: state for n, state in last["optimizer"]["state"].items()}, last["progress"][
        "step"
    ]


def write_published(trained: Path, file: Path) -> None:
    """What the published program would have saved after this training."""
    model, info = model_file.load_model(trained)
    state, steps = moments(trained)
    weights = model.state_dict()
    published = centerclip.export_file(
        model.options, weights, info.training | {"epoch": 2, "step": steps}
    )
    if file.name.startswith("ckpt"):
        published["optimizer"] = export_optimizer(model.options, weights, state, [{}] * 4)
    else:
        write_clip4clip_optimizer(file, model, state, steps)
    write_archive(file, published)


def write_clip4clip_optimizer(file: Path, model: torch.nn.Module, state: dict, steps: int) -> None:
    ours, groups = (
        our_names(model.options, model.state_dict()),
        parameter_order(
            centerclip.published_names(model.options, model.state_dict()), clip4clip=True
        ),
    )
    order = [name for group in groups for name in group]
    kept = {
        n: {"step": steps, "next_m": state[ours[name]]["m"], "next_v": state[ours[name]]["v"]}
        for n, name in enumerate(order)
        if ours[name] in state
    }
    numbers = iter(range(len(order)))
    listed = [{"params": [next(numbers) for _ in group]} for group in groups]
    content = {
        "epoch": 1,
        "optimizer_state_dict": {"state": kept, "param_groups": listed},
        "loss": 0.5,
    }
    write_archive(file.with_name("pytorch_opt.bin.1"), content)


def imported(file: Path, values: dict) -> Path:
    config = file.parent / "recipes.yaml"
    config.write_text(
        json.dumps({"recipes": {"toy": {k: v for k, v in values.items() if k != "name"}}})
    )
    arguments = [
        "import-checkpoint",
        file,
        "--recipe",
        "toy",
        "--config",
        config,
        "--out",
        file.parent / "imported",
    ]
    assert cli.main([str(a) for a in arguments]) == 0
    return file.parent / "imported"


@pytest.mark.parametrize("name", FILES)
def test_a_training_that_went_through_a_published_file_ends_as_if_it_had_not(
    name: str, inputs: dict, tmp_path: Path
) -> None:
    kind, options = FILES[name]
    whole = train(inputs, tmp_path / "whole", recipe(kind, options, epochs=3))
    half = train(inputs, tmp_path / "half", recipe(kind, options, epochs=2))
    write_published(half, tmp_path / name)
    start = imported(tmp_path / name, recipe(kind, options))

    rest = train(
        inputs, tmp_path / "rest", recipe(kind, options, epochs=3, init={"go_on": True}), start
    )

    (a, b), steps = (
        [model_file.load_model(folder)[0].state_dict() for folder in (whole, rest)],
        moments(rest)[1],
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert steps == moments(whole)[1]


def test_the_recorded_file_gives_its_steps_and_its_loss_scale(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden/centerclip/checkpoint-adamw-full/checkpoint.pth.tar"
    config = tmp_path / "recipes.yaml"
    config.write_text(
        "recipes: {g: {extends: centerclip_base, options: {backbone: given, frames: 2}}}"
    )

    assert (
        cli.main(
            [
                "import-checkpoint",
                str(file),
                "--recipe",
                "g",
                "--config",
                str(config),
                "-o",
                f"{tmp_path}",
            ]
        )
        == 0
    )

    found = read(tmp_path)
    assert (found.epoch, found.step, found.scaler["scale"]) == (2, 3, 65536.0)
    assert found.moments["clip.visual.proj"]["step"] == 3
    assert "clip.visual.class_embedding" not in found.moments  # frozen there


def test_recorded_moments_of_prompts_fit_the_prompts(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden/dgl/transformer_p4/ckpt.best.pth.tar"

    assert cli.main(["import-checkpoint", str(file), "-o", str(tmp_path)]) == 0

    weights, found = model_file.load_model(tmp_path)[0].state_dict(), read(tmp_path)
    assert (found.epoch, found.step) == (1, 7)
    assert all(
        state["exp_avg"].shape == weights[name].shape for name, state in found.moments.items()
    )
    assert {name.partition(".")[0] for name in found.moments} == {"prompts"}


@pytest.fixture(scope="module")
def start(inputs: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported training of two epochs with AdamW."""
    folder = tmp_path_factory.mktemp("start")
    half = train(inputs, folder / "half", recipe(ADAMW, {}, epochs=2))
    write_published(half, folder / "ckpt.pth.tar")
    return imported(folder / "ckpt.pth.tar", recipe(ADAMW, {}))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            recipe(BERTADAM, {}, epochs=3),
            "exp_avg, exp_avg_sq, step are not the moments of bertadam",
        ),
        (
            recipe(ADAMW, {}, epochs=3, freeze={"match": "visual"}),
            "clip.visual.class_embedding: not trained here",
        ),
        (recipe(ADAMW, {}, epochs=2), "the training run to continue has done 2"),
    ],
)
def test_a_training_that_cannot_go_on_is_refused(
    values: dict, told: str, start: Path, inputs: dict, tmp_path: Path
) -> None:
    values["train"]["init"] = {"go_on": True}

    with pytest.raises((DataError, ConfigError), match=told):
        train(inputs, tmp_path / "out", values, start)


def test_weights_without_an_optimizer_cannot_go_on(
    start: Path, inputs: dict, tmp_path: Path
) -> None:
    shutil.copy(start / "checkpoints/best.pt", tmp_path)

    with pytest.raises(ConfigError, match="no training run to continue"):
        train(
            inputs,
            tmp_path / "out",
            recipe(ADAMW, {}, epochs=3, init={"go_on": True}),
            tmp_path / "best.pt",
        )
