"""What published files hold of numpy is read; what only looks like it is refused, and takes no
memory.
"""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

import cli
from models.base import Assets
from models.hybrid_space import published as hybrid_space
from models.hybrid_space.model import build
from models.hybrid_space.options import Options
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.model_file import load_model
from pipeline.errors import DataError


def read(value: object, folder: Path, zipped: bool = True) -> object:
    torch.save({"x": value}, folder / "a.bin", _use_new_zipfile_serialization=zipped)
    return read_archive(folder / "a.bin", published=True)["x"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "number",
    [
        np.float64(210.25),
        np.float32(2),
        np.int64(-3),
        np.int32(4),
        np.bool_(True),
        np.float64("nan"),
    ],
)
def test_single_numbers_become_pythons_own(
    tmp_path: Path, number: np.generic, zipped: bool
) -> None:
    value = read(number, tmp_path, zipped)

    assert type(value) in (int, float, bool)
    assert value == number or number != number


@pytest.mark.parametrize("array", [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">f4"), np.array(1.5),
])  # fmt: skip
def test_float_arrays_of_any_layout_become_tensors(tmp_path: Path, array: np.ndarray) -> None:
    value = read(argparse.Namespace(we_parameter=array), tmp_path)["we_parameter"]

    assert value.shape == array.shape
    assert np.array_equal(value.numpy(), array)


@pytest.mark.parametrize("value", [
    np.array([1, 2]), np.array(["a"]), np.array([None]), np.complex64(1), np.str_("a"), np.datetime64("2020-01-01"),
    np.zeros(2, dtype="i4,f4"), np.longdouble(1), np.dtype("O"), np.array,
])  # fmt: skip
def test_everything_else_of_numpy_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match="only f4|Only float|refused: it asks for"):
        read(value, tmp_path)


class Call:
    """Pickled as a call of anything with any arguments and, afterwards, any state."""

    def __init__(self, *parts: object):
        self.parts = parts

    def __reduce__(self) -> tuple:
        return self.parts


F4 = np.dtype("f4")
REBUILD, NUMBER = np._core.multiarray._reconstruct, np._core.multiarray.scalar


@pytest.mark.parametrize("value", [
    Call(np.ndarray, ((1 << 40,), "f4")),
    Call(REBUILD, (np.ndarray, (1 << 40,), b"b")),
    Call(REBUILD, (np.ndarray, (0,), b"b"), (1, (1 << 40,), F4, False, b"1234")),
    Call(REBUILD, (np.ndarray, (0,), b"b"), (1, (-1,), F4, False, b"1234")),
    Call(REBUILD, (np.ndarray, (0,), b"b"), "state"),
    Call(NUMBER, (F4, b"12")),
    Call(NUMBER, ("f4", b"1234")),
    Call(np.dtype, ("f4",), (3, "!", None)),
])  # fmt: skip
def test_hostile_use_of_the_admitted_names_is_refused(tmp_path: Path, value: Call) -> None:
    with pytest.raises(DataError) as error:
        read(value, tmp_path)

    assert error.value.fix


def test_a_file_cannot_change_a_type_of_the_whole_process(tmp_path: Path) -> None:
    turned = Call(np.dtype, ("f8", False, False), (3, ">", None, None, None, -1, -1, 0))

    read([turned, np.float64(1)], tmp_path)

    assert np.dtype("f8").isnative


def test_an_ancestors_file_with_numpy_numbers_is_imported(tmp_path: Path) -> None:
    side = {"rnn": 3, "kernels": [2], "channels": 4}
    options = Options(latent_dim=4, video=side, text=side | {"word_dim": 3})
    value = hybrid_space.export_file(options, build(options, Assets(9, 3, 5)).state_dict(), {})
    value["opt"].we_parameter = np.ones((9, 3))
    value |= {"best_rsum": np.float64(210.25), "Eiters": np.int64(1018)}
    torch.save(value, tmp_path / "model_best.pth.tar")
    (tmp_path / "vocab.txt").write_text("<pad>\n<start>\n<end>\n<unk>\na\nb\nc\nd\ne\n")

    code = cli.main(
        [
            "import-checkpoint",
            str(tmp_path / "model_best.pth.tar"),
            "--vocab",
            str(tmp_path / "vocab.txt"),
            "-o",
            str(tmp_path / "ours.pt"),
        ]
    )

    training = load_model(tmp_path / "ours.pt")[1].training
    assert (code, training["best_rsum"], training["Eiters"]) == (0, 210.25, 1018)
