import os
import pickle
import resource
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text import pickles


class Vocabulary:
    """As the published scripts define it: the class a pickle of theirs names."""

    def __init__(self) -> None:
        self.word2idx = {"a": 0}


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was-here",)


class HostileState:
    def __init__(self) -> None:
        self.word2idx = {"a": 0, "b": Hostile()}


def write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_admitted_class_comes_back_as_a_shell_with_its_attributes(
    tmp_path: Path, protocol: int
) -> None:
    value = pickles.read(write(tmp_path / "v.pkl", Vocabulary(), protocol), shells=("Vocabulary",))

    assert type(value) is not Vocabulary
    assert vars(value) == {"word2idx": {"a": 0}}


def test_plain_containers_come_back_as_they_are(tmp_path: Path) -> None:
    value = ({"a": [1, 2.5]}, {"b"}, None, "text")

    assert pickles.read(write(tmp_path / "v.pkl", value, 2)) == value


@pytest.mark.parametrize(
    "value", [Hostile(), HostileState(), [Hostile()], eval, pickle.loads, Path("x")]
)
def test_anything_that_names_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "v.pkl", value)

    with pytest.raises(DataError, match="was refused.*\n.*trust"):
        pickles.read(path, shells=("Vocabulary", "HostileState"))

    assert not (tmp_path / "was-here").exists()


def test_a_class_that_was_not_admitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Vocabulary, which was refused"):
        pickles.read(write(tmp_path / "v.pkl", Vocabulary()))


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04", b"not a pickle", b"\x80\x04]\x94(K\x01", b"." * 100]
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.pkl").write_bytes(data)

    with pytest.raises(DataError, match="v.pkl"):
        pickles.read(tmp_path / "v.pkl")


@pytest.mark.parametrize("data", [
    b"\x80\x02Nr\x00\x00\x00\x10.",  # a place far beyond the objects of the file
    b"Np268435456\n.",  # the same in digits
    b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00.",  # 8 GB of bytes that are not there
    b"\x80\x04\x8d\x00\x00\x00\x00\x02\x00\x00\x00.",  # a text of 8 GB
])  # fmt: skip
def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.pkl").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(DataError, match="v.pkl: not a pickle of plain data"):
        pickles.read(tmp_path / "v.pkl")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.pkl: cannot be read"):
        pickles.read(tmp_path / "gone.pkl")
