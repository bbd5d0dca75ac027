"""DiffusionRet from the command line: published files in and out, words and frames explained, what
is refused.
"""

import json
from pathlib import Path

import pytest
import torch

import cli
from models.diffusion_ret import published
from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive import read_archive
from pipeline.errors import DataError
from pipeline.text.clip_bpe import find_table
from tests.evaluation.diffusion_world import evaluate, make
from tests.models.diffusion_ret.small_diffusion import small_diffusion


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A published file of the second stage, CLIP's matrices in float16 as a GPU writes it."""
    model = small_diffusion(half_weights=True)
    file = tmp_path / "best.pth"
    torch.save(published.export_checkpoint(model.options, model.state_dict()), file)
    return file


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")
    return make(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("name", ["best.pth", "pytorch_model.bin.4", "pytorch_model.bin.ema.4"])
def test_a_file_comes_in_under_any_published_name(
    best: Path, tmp_path: Path, name: str, capsys
) -> None:
    file = best.rename(tmp_path / name)

    assert call("import-checkpoint", file, "--out", tmp_path / "ours.pt") == 0

    out = capsys.readouterr().out
    assert "diffusionret_msrvtt_2" in out and name in out


def test_a_half_precision_file_goes_out_as_it_came_in(best: Path, tmp_path: Path) -> None:
    recipe = "diffusionret_msrvtt_2_published"

    assert call("import-checkpoint", best, "--recipe", recipe, "--out", tmp_path / "ours.pt") == 0
    assert call("export-checkpoint", tmp_path / "ours.pt", "--out", tmp_path / "again.pth") == 0

    first, second = read_archive(best), read_archive(tmp_path / "again.pth")
    assert first.keys() == second.keys()
    assert all(
        value.dtype == second[name].dtype and torch.equal(value, second[name])
        for name, value in first.items()
    )


def test_settings_that_the_form_cannot_keep_are_listed(best: Path, tmp_path: Path, capsys) -> None:
    call("import-checkpoint", best, "--out", tmp_path / "ours.pt")
    model, info = model_file.load_model(tmp_path / "ours.pt")
    info.recipe.options.masked_softmax = True
    model_file.write_model(tmp_path / "masked.pt", info, model.state_dict())

    call("export-checkpoint", tmp_path / "masked.pt", "--out", tmp_path / "masked.pth")

    assert "masked_softmax True -> False" in capsys.readouterr().err


def test_a_recipe_of_another_system_is_refused(best: Path, tmp_path: Path, capsys) -> None:
    assert call("import-checkpoint", best, "--recipe", "drl", "--out", tmp_path / "ours.pt") == 2

    assert "recipe drl is for drl, the file holds diffusion_ret" in capsys.readouterr().err


def test_words_and_frames_are_explained(world: dict, tmp_path: Path, capsys) -> None:
    evaluate(world, tmp_path, "second")
    capsys.readouterr()
    asked = (
        "--text",
        "something red is left",
        "--video",
        "test0",
        "--videos",
        tmp_path / "second",
        "--json",
    )

    assert call("explain", world["second"].path, *asked) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["score"] == pytest.approx((found["t2v"] + found["v2t"]) / 2)
    assert sum(row["weight"] for row in found["words"]) == pytest.approx(1, abs=1e-3)


def test_a_recipe_is_shown_with_its_defaults(capsys) -> None:
    assert call("show", "diffusionret_msrvtt_2") == 0

    out = capsys.readouterr().out
    assert "diffusion_steps: 50" in out and "negatives: 127" in out and "moment: 0.99" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{schedule: linear}", "at least 21"),
        ("{sampling_steps: 21}", "the schedule has 20 diffusion_steps"),
    ],
)
def test_steps_that_the_schedule_has_not_are_refused(
    world: dict, tmp_path: Path, capsys, options, message
) -> None:
    recipe = f"{{extends: tiny_diffusion_2, options: {options}}}"

    code = call(
        "train",
        "--in",
        world["tensors"].path,
        "--annotations",
        "demo",
        "--recipe",
        recipe,
        "--out",
        tmp_path,
    )

    assert code == 2
    assert message in capsys.readouterr().err
