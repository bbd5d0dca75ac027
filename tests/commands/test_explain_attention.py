"""explain: where in the frames a model with global prompts looks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from pipeline.checkpoints import model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.explain import attention
from pipeline.recipes.recipe import parse
from tests.models.dgl.small_dgl import small_dgl
from tests.stages.store_runs import frames, videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, model.pt, and a frames step, store."""
    folder = tmp_path_factory.mktemp("looks")
    frames(videos(folder / "raw", 2), folder / "store")
    model = small_dgl()
    values = {"name": "small", "model": "dgl", "options": model.options.model_dump()}
    recipe = parse(values | {"train": {"optimizer": {"lr": 1e-3}}})
    model_file.write_model(folder / "model.pt", ModelInfo(recipe, {}, {}), model.state_dict())
    return folder


def explain(
    capsys: pytest.CaptureFixture, folder: Path, *arguments: object
) -> tuple[int, str, str]:
    code = cli.main(["explain", str(folder / "model.pt"), *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_frame_has_its_share_of_the_attention(folder: Path, capsys) -> None:
    code, out, _ = explain(
        capsys, folder, "--video", "video00", "--frames", folder / "store", "--json"
    )

    found = json.loads(out)
    assert (code, found["block"]) == (0, 3)
    assert [row["frame"] for row in found["frames"]] == [0, 1, 2]
    assert 0 < sum(row["global prompt"] for row in found["frames"]) < 1
    assert all(
        0 < row[name] < 1 for row in found["frames"] for name in ("class token", "frame prompt")
    )


def test_the_picture_has_a_row_for_frames_each_map_and_the_curve(
    folder: Path, tmp_path: Path, capsys
) -> None:
    for name in ("one.png", "two.png"):
        explain(
            capsys,
            folder,
            "--video",
            "video01",
            "--frames",
            folder / "store",
            "-o",
            tmp_path / name,
        )

    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (int((1.4 + 3) * 150), int((1.9 + 4) * 150))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_blocks_look_elsewhere(folder: Path, capsys) -> None:
    asked = ("--video", "video00", "--frames", folder / "store", "--json", "--block")

    first, last = (json.loads(explain(capsys, folder, *asked, n)[1])["frames"] for n in (1, 3))

    assert first != last


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--video", "video00"), "where in the frames it looks"),
        (
            ("--video", "video00", "--frames", "store", "--block", 9),
            "no block 9: the vision tower has 3",
        ),
        (("--video", "other", "--frames", "store"), "other: not there"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused(folder: Path, capsys, arguments: tuple, what: str) -> None:
    places = [folder / "store" if a == "store" else a for a in arguments]

    code, _, err = explain(capsys, folder, *places)

    assert code == 2
    assert what in err


def test_one_scale_for_the_video_keeps_frames_comparable() -> None:
    maps = np.stack([np.full((2, 2), 0.1), np.array([[0.1, 0.2], [0.3, 0.4]])]).astype(np.float32)
    looks = attention.Looks(np.zeros((2, 16, 16, 3), np.uint8), {"global": maps}, 1)

    own, shared = (attention.overlaid(looks, "global", per_video) for per_video in (False, True))

    assert (shared[1] == own[1]).all()  # the second frame spans the whole range
    assert (shared[0, 0, 0] == own[1, 0, 0]).all()  # the least value has one colour everywhere


def test_maps_are_enlarged_from_corner_to_corner() -> None:
    maps = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).numpy()
    looks = attention.Looks(np.zeros((1, 5, 5, 3), np.uint8), {"class": maps}, 1)

    row = attention.overlaid(looks, "class")[0, 2].astype(int)

    lightness = row @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()  # dark to the left, light to the right
