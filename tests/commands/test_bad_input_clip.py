"""What can be wrong with a training of CLIP's systems, from the command line: what, where, what to
do, exit code.
"""

import json
from pathlib import Path

import pytest
import torch

import cli
from tests.feeding import frames_toy
from tests.models.clip.hugging_face import as_hugging_face
from tests.models.clip.small_clip import RESNET, VIT, small_clip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip_inputs")
    frames_toy.build(folder)
    (folder / "noise.pt").write_bytes(bytes(range(256)) * 20)
    torch.save({"weight": torch.zeros(3)}, folder / "no_clip.pt")
    torch.save(small_clip(VIT).state_dict(), folder / "small.pt")
    torch.save(small_clip(RESNET).state_dict(), folder / "resnet.pt")
    damaged = as_hugging_face(small_clip(VIT).state_dict())
    damaged.pop("text_model.encoder.layers.0.self_attn.k_proj.weight")
    torch.save(damaged, folder / "damaged.bin")
    return folder


def train(inputs: Path, out: Path, options: dict, **flags: object) -> int:
    recipe = frames_toy.recipe(epochs=1) | {"name": "mine"}
    recipe["options"] = recipe["options"] | options
    given = {
        "--recipe": json.dumps(recipe),
        "--tensors": inputs / "tensors",
        "--annotations": inputs,
        "--out": out,
    }
    given |= {f"--{flag}": value for flag, value in flags.items()}
    return cli.main(["train", *(str(word) for pair in given.items() for word in pair)])


SEGMENTS = {"frames": 1, "tokens": 4}


@pytest.mark.parametrize(("options", "told", "cure"), [
    ({"reduce": {3: SEGMENTS | {"frames": 2}}}, "3 frames do not make 2 equal segments", "choose one of 1, 3"),
    ({"reduce": {3: SEGMENTS | {"frames": 6}}}, "3 frames are fewer than 6 segments", "or more frames"),
    ({"reduce": {3: SEGMENTS}, "frames": 0}, "frames: Input should be greater than or equal to 1", "frames per video"),
    ({"backbone": "ViT-B/64"}, "backbone: choose one of ViT-B/32", "CLIP to build on"),
])  # fmt: skip
def test_options_that_cannot_be(
    options: dict, told: str, cure: str, inputs: Path, tmp_path: Path, capsys
) -> None:
    code = train(inputs, tmp_path / "out", options)

    error = capsys.readouterr().err
    assert code == 2
    assert "recipes.mine.options" in error
    assert told in error and cure in error


@pytest.mark.parametrize(("options", "told", "cure"), [
    ({"reduce": {3: SEGMENTS | {"tokens": 49}}}, "49 tokens are to be left of segments of 48", "Lower reduce: tokens"),
    ({"reduce": {9: SEGMENTS}}, "reduce: block 9 of a vision tower of 4", "Blocks count from 1 to 4"),
    ({"words": 60}, "texts of 60 tokens, the text tower reads 32", "Set words to 32 or less"),
])  # fmt: skip
def test_options_that_do_not_fit_the_backbone(
    options: dict, told: str, cure: str, inputs: Path, tmp_path: Path, capsys
) -> None:
    code = train(inputs, tmp_path / "out", options)

    head, _, fix = capsys.readouterr().err.strip().rpartition("\n    ")
    assert code == 4
    assert "train: recipe mine: " in head
    assert told in head and cure in fix


@pytest.mark.parametrize(("name", "told", "cure"), [
    ("noise.pt", "not a readable checkpoint", "cut short, damaged or of another kind"),
    ("nowhere.pt", "there is no", ""),
    ("no_clip.pt", "1 entries, 6 missing: visual.conv1.weight", "Is it a CLIP checkpoint?"),
    ("damaged.bin", "missing: transformer.resblocks.0.attn.k_proj.weight", "damaged or not a whole CLIP"),
    ("small.pt", "not the weights of tiny: embed 16, not 64", "set backbone to that of the weights"),
    ("resnet.pt", "weights of a ResNet", "Use weights of a ViT"),
])  # fmt: skip
def test_weights_to_start_from_that_do_not_fit(
    name: str, told: str, cure: str, inputs: Path, tmp_path: Path, capsys
) -> None:
    code = train(inputs, tmp_path / "out", {}, init=inputs / name)

    head, _, fix = capsys.readouterr().err.strip().rpartition("\n    ")
    assert code == 4
    assert told in head
    assert ": " in head
    assert fix and cure in fix


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(inputs: Path, tmp_path: Path, capsys) -> None:
    code = train(inputs, tmp_path / "out", {}, device="cuda")

    error = capsys.readouterr().err
    assert code == 2
    assert "--device cuda: there is no GPU" in error and "Use --device cpu" in error


def test_the_same_flags_and_good_options_work(inputs: Path, tmp_path: Path) -> None:
    assert train(inputs, tmp_path / "out", {"reduce": {3: SEGMENTS}}) == 0
