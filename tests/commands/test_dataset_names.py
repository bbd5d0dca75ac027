"""A folder that is called like a data set is never passed over in silence."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import log
from pipeline.commands._dataset import is_dataset, path_spec
from pipeline.config import Config
from pipeline.datasets.base import open_dataset


@pytest.fixture
def loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Config]:
    monkeypatch.chdir(tmp_path)
    log.set_up()
    yield Config({"mine": {"type": "folder", "root": "data/mine"}}, {}, {})
    log.logger.handlers.clear()  # it writes to this test's stderr
    log.logger.propagate = True


def test_the_folder_is_read_where_the_data_set_has_no_files(
    loaded: Config, capsys: pytest.CaptureFixture
) -> None:
    Path("mine").mkdir()

    assert not is_dataset(loaded, "mine")
    assert "mine: read as the folder ./mine" in capsys.readouterr().err


def test_the_data_set_is_read_where_both_are_there(
    loaded: Config, capsys: pytest.CaptureFixture
) -> None:
    for folder in ("mine", "data/mine"):
        Path(folder).mkdir(parents=True)

    assert is_dataset(loaded, "mine")
    assert "whose files are in data/mine; the folder here is ./mine" in capsys.readouterr().err


def test_nothing_is_said_where_only_one_can_be_meant(
    loaded: Config, capsys: pytest.CaptureFixture
) -> None:
    assert is_dataset(loaded, "mine")
    assert not is_dataset(loaded, "./mine")
    assert capsys.readouterr().err == ""


def test_captions_beside_their_videos_call_them_as_the_folder_does(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/clip.MP4").write_bytes(b"x")
    (tmp_path / "captions.csv").write_text("video,caption\nCLIP.mp4,a cat\n")
    (tmp_path / "table.csv").write_text("video,caption\nCLIP.mp4,a cat\n1.0,a dog\n")

    beside = open_dataset(path_spec(tmp_path / "captions.csv")).load()
    alone = open_dataset(path_spec(tmp_path / "table.csv")).load()

    assert list(beside.videos) == ["sub/clip"]
    assert list(alone.videos) == ["CLIP", "1"]
