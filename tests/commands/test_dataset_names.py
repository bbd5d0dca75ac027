"""A folder that is called like a data set is never passed over in silence."""

from pathlib import Path

import pytest

from pipeline import log
from pipeline.commands._dataset import is_dataset
from pipeline.config import Config


@pytest.fixture
def loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Config:
    monkeypatch.chdir(tmp_path)
    log.set_up()
    return Config({"mine": {"type": "folder", "root": "data/mine"}}, {}, {})


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
