"""The visualize command: the right frames in the picture, patches, covered patches, bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from pipeline.video.sampling import choose_frames
from tests.videos import Film, index_of, write


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 3 per second, so that compressing keeps every one; bars tell their numbers."""
    return write(
        tmp_path_factory.mktemp("films") / "film.mp4", Film(frames=60, fps=3, width=128, height=128)
    )


def draw(film: Path | str, out: Path, *more: object) -> int:
    return cli.main(
        ["visualize", str(film), "--out", str(out), "--short-side", "128", *map(str, more)]
    )


def frames(folder: Path, name: str = "crop") -> list[int]:
    count = len(list(folder.glob(f"{name}-*.png")))
    return [index_of(np.array(Image.open(folder / f"{name}-{n}.png"))) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("count", "mode"), [(12, "centers"), (5, "linspace"), (7, "head"), (64, "centers")]
)
def test_the_frames_are_those_that_a_model_is_tested_with(
    count: int, mode: str, film: Path, tmp_path: Path
):
    assert draw(film, tmp_path / "sheet.png", "--frames", count, "--mode", mode, "--single") == 0

    assert frames(tmp_path) == choose_frames(60, count, mode)[0].tolist()


def test_a_pipeline_says_how_dense_and_large_the_videos_of_its_model_are(
    film: Path, tmp_path: Path
):
    (tmp_path / "own.yaml").write_text(
        "recipes:\n  mine: {model: centerclip, options: {frames: 64}}\n"
        "pipelines: {own: {dataset: demo, steps: {compress: {fps: 1, short_side: 64},"
        " train: {recipe: {extends: mine, options: {frames: 4}}}}}}\n"
    )
    words = ["--recipe", "own", "--config", str(tmp_path / "own.yaml"), "--single"]

    assert cli.main(["visualize", str(film), "--out", str(tmp_path / "sheet.png"), *words]) == 0

    candidates = np.arange(0, 60, 3)
    assert frames(tmp_path) == candidates[choose_frames(20, 4, "centers")[0]].tolist()
    assert Image.open(tmp_path / "crop-1.png").size == (64, 64)


def test_a_recipe_says_how_many_frames(film: Path, tmp_path: Path):
    (tmp_path / "own.yaml").write_text(
        "recipes:\n  mine: {model: centerclip, options: {frames: 5}}\n"
    )

    draw(
        film,
        tmp_path / "sheet.png",
        "--recipe",
        "mine",
        "--config",
        tmp_path / "own.yaml",
        "--single",
    )

    assert len(frames(tmp_path)) == 5


def test_the_sheet_holds_all_frames_and_grows_with_captions(film: Path, tmp_path: Path):
    draw(film, tmp_path / "plain.png")
    draw(film, tmp_path / "spoken.png", "--caption", "a man — человек", "--caption", "x" * 5000)

    plain, spoken = Image.open(tmp_path / "plain.png"), Image.open(tmp_path / "spoken.png")
    assert plain.width == 2 * 16 + 6 * 128 + 5 * 8
    assert spoken.height == plain.height + 2 * 19


def test_a_video_of_a_dataset_is_found_by_its_id(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/one.mp4").write_bytes(film.read_bytes())
    (tmp_path / "films/captions.csv").write_text("video,caption\none.mp4,bars that count\n")

    assert draw("one", tmp_path / "a.png", "--dataset", tmp_path / "films") == 0
    assert draw("two", tmp_path / "b.png", "--dataset", tmp_path / "films") == 4

    assert "neither a file nor a video" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


def test_patches_are_numbered_column_by_column(film: Path, tmp_path: Path):
    draw(film, tmp_path / "sheet.png", "--frames", 2, "--single", "--patches")

    whole = np.array(Image.open(tmp_path / "crop-2.png"))
    assert len(list((tmp_path / "crop-2").iterdir())) == 16
    assert (np.array(Image.open(tmp_path / "crop-2/crop-2-2.png")) == whole[32:64, :32]).all()
    assert (np.array(Image.open(tmp_path / "crop-2/crop-2-5.png")) == whole[:32, 32:64]).all()


def test_patches_that_were_dropped_are_covered(film: Path, tmp_path: Path):
    np.save(
        tmp_path / "kept.npy", np.array([[0, 16 + 5], [3, 31]])
    )  # two segments of two frames of 4 x 4 patches

    draw(film, tmp_path / "sheet.png", "--frames", 4, "--kept", tmp_path / "kept.npy", "--single")

    plain, masked = (
        [np.array(Image.open(tmp_path / f"{name}-{n}.png")).astype(int) for n in range(1, 5)]
        for name in ("crop", "crop-masked")
    )
    same = [
        (a == b).all(axis=-1).reshape(4, 32, 4, 32).all(axis=(1, 3))
        for a, b in zip(plain, masked, strict=True)
    ]
    assert [sorted(zip(*map(list, np.nonzero(cells)), strict=True)) for cells in same] == [
        [(0, 0)], [(1, 1)], [(0, 3)], [(3, 3)]
    ]  # fmt: skip
    assert abs(masked[0][40, 40] - (plain[0][40, 40] * 85 + 192 * 170) / 255).max() <= 1


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 1), int), "not one row of patch ids per segment of 4 frames"),
        (np.zeros((2, 1)), "float64"),
        (np.array([[32], [0]]), "patch ids from 0 to 32"),
        (np.array([[{}]], object), "not an array"),
    ],
)
def test_wrong_arrays_are_explained(
    array, words: str, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    np.save(tmp_path / "kept.npy", array, allow_pickle=True)

    code = draw(film, tmp_path / "sheet.png", "--frames", 4, "--kept", tmp_path / "kept.npy")

    assert code == 4
    assert words in capsys.readouterr().err


def test_what_is_no_video_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "text.mp4").write_text("no film\n" * 30)

    assert draw(tmp_path / "text.mp4", tmp_path / "a.png") == 4
    assert draw(tmp_path / "none.mp4", tmp_path / "a.png") == 4
    assert draw(tmp_path / "none.mp4", tmp_path / "a.png", "--recipe", "nothing") == 4

    said = capsys.readouterr().err
    assert "text.mp4: it cannot be used: unreadable" in said
    assert "no such file" in said


def test_a_recipe_without_frames_is_refused(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert draw(film, tmp_path / "a.png", "--recipe", "tiny_dual") == 2

    assert "reads features and not frames" in capsys.readouterr().err
