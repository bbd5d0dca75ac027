"""Checkpoints that leave frozen weights to the file of their backbone, and refuse another one."""

import shutil
from pathlib import Path

import pytest
import torch

from models.base import Assets
from models.dgl.model import build
from pipeline.checkpoints import model_file, partial
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.errors import DataError
from pipeline.recipes.recipe import Recipe, parse
from tests.models.dgl.small_dgl import FRAMES, WORDS, small_clip, small_dgl


def recipe(**train: object) -> Recipe:
    options = {
        "backbone": "given",
        "words": WORDS,
        "frames": FRAMES,
        "layers": 3,
        "half_rounding": False,
    }
    settings = {"optimizer": {"lr": 1e-3}, "freeze": {"match": r"^clip\."}} | train
    return parse({"name": "small", "model": "dgl", "options": options, "train": settings})


def saved_clip(path: Path, seed: int = 0) -> Path:
    """Weights of a CLIP as OpenAI names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(small_clip(seed).state_dict(), path)
    return path


def tuned(folder: Path, recipe: Recipe, clip: Path) -> tuple[Path, dict]:
    """A best.pt of a model on this CLIP, with other prompts, and all of its weights."""
    model = build(recipe.options, Assets(clip=torch.load(clip, weights_only=True)))
    about = partial.facts(model, recipe.train, clip, folder)
    with torch.no_grad():
        for prompt in model.prompts.parameters():
            prompt.add_(1)
    path, weights = folder / "best.pt", model.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    model_file.write_model(path, ModelInfo(recipe, about, {}), weights)
    return path, weights


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, dict, Path]:
    """(best.pt, all its weights, the file of its backbone)."""
    clip = saved_clip(tmp_path / "clip" / "small.pt")
    return *tuned(tmp_path / "train" / "checkpoints", recipe(), clip), clip


def test_only_what_trained_is_in_the_file_and_all_of_it_is_read(pair) -> None:
    path, weights, _ = pair

    stored, model = read_archive(path)["weights"], model_file.load_model(path)[0]

    trained = {name for name in weights if name.startswith("prompts.")}
    assert set(stored) == trained | {
        "clip.logit_scale"
    }  # its limits may move it though it is frozen
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_folders_can_be_moved_together(pair, tmp_path: Path) -> None:
    path, _, _ = pair
    shutil.copytree(tmp_path / "clip", tmp_path / "there" / "clip")
    shutil.copytree(path.parent, tmp_path / "there" / "train" / "checkpoints")
    shutil.rmtree(tmp_path / "clip")

    model_file.load_model(tmp_path / "there" / "train" / "checkpoints" / "best.pt")


def test_another_backbone_is_refused(pair) -> None:
    path, _, clip = pair
    saved_clip(clip, seed=1)

    with pytest.raises(DataError, match="trained on another backbone: its digest is") as caught:
        model_file.load_model(path)

    assert caught.value.where == str(path)
    assert "Put the weights it was trained on at" in caught.value.fix


def test_a_backbone_of_other_sizes_is_refused(pair) -> None:
    path, _, clip = pair
    torch.save(small_clip(vision_layers=2).state_dict(), clip)

    with pytest.raises(DataError, match="is none: .* tensors are there"):
        model_file.load_model(path)


def test_a_missing_backbone_is_named_and_taken_from_beside(pair) -> None:
    path, _, clip = pair
    clip.rename(path.with_name("away.pt"))
    with pytest.raises(DataError, match="the backbone, .* frozen tensors, is not there"):
        model_file.load_model(path)

    path.with_name("away.pt").rename(path.with_name("backbone.pt"))

    assert model_file.load_model(path)[0].options.layers == 3


def test_weights_rounded_when_they_were_taken_are_rounded_again(tmp_path: Path) -> None:
    clip = saved_clip(tmp_path / "small.pt")
    rounding = parse(
        recipe().resolve() | {"options": recipe().options.model_dump() | {"half_rounding": True}}
    )

    path, weights = tuned(tmp_path, rounding, clip)

    model = model_file.load_model(path)[0]
    assert read_archive(path)["facts"]["backbone"]["rounded"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_backbone_of_our_own_form_serves_as_well(tmp_path: Path) -> None:
    first, about = small_dgl(half_rounding=False), recipe(freeze=None)
    model_file.write_model(tmp_path / "first.pt", ModelInfo(about, {}, {}), first.state_dict())

    settings = partial.facts(first, recipe().train, tmp_path / "first.pt", tmp_path)
    model_file.write_model(
        tmp_path / "best.pt", ModelInfo(recipe(), settings, {}), first.state_dict()
    )

    assert (tmp_path / "best.pt").stat().st_size < (tmp_path / "first.pt").stat().st_size / 2
    assert model_file.load_model(tmp_path / "best.pt")[0].options.layers == 3


def test_weights_that_changed_are_written_whole(pair, tmp_path: Path) -> None:
    path, weights, _ = pair
    info = model_file.load_model(path)[1]
    changed = weights | {"clip.ln_final.bias": weights["clip.ln_final.bias"] + 1}

    model_file.write_model(path.with_name("other.pt"), info, changed)

    assert set(read_archive(path.with_name("other.pt"))["weights"]) == set(weights)


def test_elsewhere_without_the_backbone_it_is_written_whole(pair, tmp_path: Path) -> None:
    path, weights, _ = pair
    (tmp_path / "some" / "where" / "else").mkdir(parents=True)

    model_file.write_model(
        tmp_path / "some" / "where" / "else" / "copy.pt", model_file.load_model(path)[1], weights
    )

    assert set(read_archive(tmp_path / "some" / "where" / "else" / "copy.pt")["weights"]) == set(
        weights
    )


@pytest.mark.parametrize(
    "train", [{"freeze": None}, {"freeze": {"match": r"^clip\.positional"}}], ids=str
)
def test_full_tuning_and_little_freezing_stand_alone(tmp_path: Path, train: dict) -> None:
    path, weights = tuned(tmp_path, recipe(**train), saved_clip(tmp_path / "small.pt"))

    assert set(read_archive(path)["weights"]) == set(weights)


def test_a_training_goes_on_from_what_it_trained(pair) -> None:
    path, weights, _ = pair
    about, model = read_archive(path)["facts"], small_dgl(half_rounding=False)

    part = partial.trained(weights, about)
    partial.load_trained(model, part, about)

    assert len(part) < len(weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_what_says_nonsense_of_its_backbone_is_refused(pair) -> None:
    path, _, _ = pair
    value = read_archive(path)
    write_archive(path, value | {"facts": {"backbone": {"file": "x"}}})

    with pytest.raises(DataError, match="its backbone entry is malformed"):
        model_file.load_model(path)
