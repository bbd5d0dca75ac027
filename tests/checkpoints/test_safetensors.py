import json
import random
from pathlib import Path

import pytest
import safetensors.torch as library
import torch

import cli
from pipeline.checkpoints import model_file, safetensors
from pipeline.checkpoints.opening import kind_of_weights
from pipeline.errors import DataError
from tests.search.systems import checkpoint


def written(path: Path, table: object, numbers: bytes) -> Path:
    """A file of this table of contents, written here from the format's description."""
    head = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + numbers)
    return path


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


TENSORS = {
    "b": torch.arange(6.0).view(2, 3),
    "a": torch.tensor([1.5, -2], dtype=torch.float16),
    "scale": torch.tensor(2.5, dtype=torch.bfloat16),
    "n": torch.tensor([[7]]),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    table, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, value in TENSORS.items():
        raw = (
            value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            if value.numel()
            else b""
        )
        if value.dim() == 0:
            raw = value.view(1).view(torch.uint8).numpy().tobytes()
        table[name] = entry(
            names[value.dtype], list(value.shape), len(numbers), len(numbers) + len(raw)
        )
        numbers += raw
    return written(tmp_path / "model.safetensors", table, numbers)


def test_every_tensor_is_read_with_type_shape_and_value(file: Path) -> None:
    ours = safetensors.read(file)

    assert ours.keys() == TENSORS.keys()
    assert all(torch.equal(ours[name], TENSORS[name]) for name in TENSORS)
    assert all(ours[name].dtype == TENSORS[name].dtype for name in TENSORS)


@pytest.mark.parametrize(("table", "numbers"), [
    ({"a": entry("F32", [2], 0, 8)}, bytes(4)),  # beyond the end
    ({"a": entry("F32", [2], 0, 4)}, bytes(4)),  # too short for its shape
    ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 2, 6)}, bytes(6)),  # overlapping
    ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, bytes(12)),  # a gap
    ({"a": entry("F32", [1], 0, 4)}, bytes(8)),  # bytes of nothing
    ({"a": entry("F32", [-1, -1], 0, 4)}, bytes(4)),
    ({"a": entry("F32", [1 << 40, 1 << 40], 0, 4)}, bytes(4)),
    ({"a": entry("X64", [1], 0, 8)}, bytes(8)),
    ({"a": {"dtype": "F32"}}, b""),
    ({"a": 3}, b""),
    ([1, 2], b""),
    (b"{", b""),
    (b"\xff\xfe", b""),
    (b"[" * 100_000, b""),
])  # fmt: skip
def test_tables_that_do_not_fit_their_numbers_are_refused(
    tmp_path: Path, table: object, numbers: bytes
) -> None:
    with pytest.raises(DataError, match=r"not a readable \.safetensors file"):
        safetensors.read(written(tmp_path / "a.safetensors", table, numbers))


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\xff" * 8, b"\xff" * 100, random.Random(3).randbytes(60)]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)

    with pytest.raises(DataError):
        safetensors.read(tmp_path / "a.safetensors")


def test_damaged_table_is_a_data_error_or_read(file: Path) -> None:
    whole, rng = file.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(whole)
        data[rng.randrange(300)] = rng.randrange(256)
        file.write_bytes(data)
        try:
            safetensors.read(file)
        except DataError as error:
            assert error.fix  # anything else that is raised fails the test


@pytest.mark.parametrize("system", ["mean", "dual"])
def test_a_model_goes_into_one_file_and_comes_back(system: str, tmp_path: Path) -> None:
    model, info, best = checkpoint(tmp_path / "ours", system)
    file = tmp_path / "hub" / "model.safetensors"

    assert cli.main(["export-checkpoint", str(best), "--out", str(file)]) == 0

    again, known = model_file.load_model(file)
    assert kind_of_weights(file) == kind_of_weights(file.parent) == "ours"
    assert known.recipe == info.recipe and known.facts == info.facts
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.state_dict().items())
    assert library.load_file(file).keys() == own.keys()  # which other programs read too


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        safetensors.read(tmp_path / "none.safetensors")
