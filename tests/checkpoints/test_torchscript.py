"""Programs of torch as weight files: all tensors, no code, and every hostile file refused before it
does harm.
"""

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.checkpoints import torchscript
from pipeline.errors import DataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # the files are still published


class Part(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4).to(dtype))
        self.register_buffer("count", torch.tensor(7))
        self.tag = 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.parts = nn.ModuleList([Part(torch.float16), Part(torch.float32), Part(torch.bfloat16)])
        self.view = nn.Parameter(torch.arange(12.0).view(3, 4).t())  # strides of its own
        self.none = nn.Parameter(torch.empty(0, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.pt"
    torch.jit.script(Whole()).save(path)
    return path


def test_every_tensor_is_read_with_name_type_and_value(program: Path) -> None:
    ours = torchscript.read(program)

    expected = torch.jit.load(program).state_dict()
    assert ours.keys() == expected.keys()
    assert {name: v.dtype for name, v in ours.items()} == {
        name: v.dtype for name, v in expected.items()
    }
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_recorded_archives_are_read_as_torch_reads_them(shared: Path) -> None:
    for name in ("vit-torchscript-fp16", "resnet-torchscript-fp16"):
        path = shared / "golden/clip-backbone" / name / "checkpoint.pt"

        ours, expected = torchscript.read(path), torch.jit.load(path).state_dict()

        assert ours.keys() == expected.keys()
        assert all(
            torch.equal(ours[key], expected[key]) and ours[key].dtype == expected[key].dtype
            for key in expected
        )


def test_device_it_was_made_on_does_not_matter(program: Path) -> None:
    on_gpu = rewritten(
        program,
        {"data.pkl": lambda d: d.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")},
    )

    assert torchscript.read(on_gpu).keys() == torchscript.read(program).keys()


def test_a_program_is_told_from_a_state_dict(program: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("hello")

    files = program, tmp_path / "state.pt", tmp_path / "text.pt", tmp_path / "none.pt"
    assert [torchscript.is_program(path) for path in files] == [True, False, False, False]


def rewritten(
    path: Path, changes: Mapping, method: int = zipfile.ZIP_STORED, extra: Mapping | None = None
) -> Path:
    """A copy with entries changed by functions of their bytes, and others added under their full
    names.
    """
    out = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", method) as new:
        for info in old.infolist():
            root, _, name = info.filename.partition("/")
            new.writestr(info.filename, changes.get(name, lambda d: d)(old.read(info)))
        for name, data in (extra or {}).items():
            new.writestr(name.replace("ROOT", root), data)
    return out


def pickled(path: Path, data: bytes) -> Path:
    """The program with another pickle as its tree."""
    return rewritten(path, {"data.pkl": lambda _: data})


MODULE = b"c__torch__.M\nM\n)\x81"
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00%bX\x03\x00\x00\x00cpuK%btQ"
)


def module_with(value: bytes) -> bytes:
    """A pickle of a module whose attribute `w` is `value`."""
    return b"\x80\x02" + MODULE + b"}X\x01\x00\x00\x00w" + value + b"sb."


def tensor(numbers: bytes, key: bytes = b"0", count: int = 1) -> bytes:
    """A tensor of storage `key` of `count` numbers; numbers: offset, size and stride as opcodes."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE % (key, bytes([count]))
        + numbers
        + b"\x89}tR"
    )


@pytest.mark.parametrize(("name", "what"), [
    (b"cposix\nsystem\n(X\x05\x00\x00\x00falsetR", "posix.system"),
    (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR", "builtins.eval"),
    (b"ctorch\nload\n(X\x01\x00\x00\x001tR", "torch.load"),
    (b"ctorch._utils\n_rebuild_tensor\n(tR", "torch._utils._rebuild_tensor"),
    (b"c__torch__x\nM\n)\x81", "__torch__x.M"),
])  # fmt: skip
def test_whatever_else_it_names_is_refused_by_name(program: Path, name: bytes, what: str) -> None:
    with pytest.raises(
        DataError, match=rf"refused: it asks for {what}\n.*Nothing in it was executed"
    ):
        torchscript.read(pickled(program, module_with(name)))


def test_hostile_objects_do_not_run(program: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    with pytest.raises(DataError, match="refused"):
        torchscript.read(pickled(program, pickle.dumps(Evil(), protocol=2)))

    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("numbers", "what"), [
    (b"K\x00K\x02\x85K\x01\x85", "reaches beyond its 1 numbers"),  # two of one number
    (b"K\x01K\x01\x85K\x01\x85", "reaches beyond its 1 numbers"),  # behind the end
    (b"K\x00K\x05\x85K\x00\x85", "reaches beyond its 1 numbers"),  # stride 0: memory out of nothing
    (b"K\x00J\xff\xff\xff\xff\x85K\x01\x85", "a tensor with offset 0, size"),  # negative size
    (b"J\xff\xff\xff\xffK\x01\x85K\x01\x85", "a tensor with offset -1"),
    (b"K\x00K\x01\x85K\x01K\x01\x86", "a tensor with offset 0"),  # more strides than sizes
    (b"K\x00K\x01\x85]", "a tensor is not described by"),  # a list for a tuple
    (b"\x88K\x01\x85K\x01\x85", "a tensor with offset True"),
    # 2^63 - 1
    (b"K\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\x01\x85", "reaches beyond its 1 numbers"),
])  # fmt: skip
def test_tensors_beyond_their_storage_are_refused(program: Path, numbers: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        torchscript.read(pickled(program, module_with(tensor(numbers))))


def test_handmade_tensor_within_its_storage_is_read(program: Path) -> None:
    one = torchscript.read(program)["scale"]

    assert torchscript.read(pickled(program, module_with(tensor(b"K\x00K\x01\x85K\x01\x85"))))[
        "w"
    ].tolist() == [one]


@pytest.mark.parametrize("key", [b"9", b"/", b"."])
def test_storage_that_is_not_there_is_an_error(program: Path, key: bytes) -> None:
    with pytest.raises(DataError, match="is missing"):
        torchscript.read(pickled(program, module_with(tensor(b"K\x00K\x01\x85K\x01\x85", key))))


def test_storage_of_another_length_than_stated_is_an_error(program: Path) -> None:
    with pytest.raises(DataError, match="data/0 has 4 bytes, not 2"):
        torchscript.read(pickled(program, module_with(tensor(b"K\x00K\x01\x85K\x01\x85", count=2))))


@pytest.mark.parametrize(("pickle_bytes", "what"), [
    (b"\x80\x02" + MODULE + b"r\xff\xff\xff\x7f.", "room for 2,147,483,647 objects"),
    (b"\x80\x02\x8b\x01\x00\x00\x00\x00.", "its pickle uses LONG4"),
    (b"\x80\x04\x82\x01.", "its pickle uses EXT1"),
    (b"\x80\x02(i__main__\nx\n.", "its pickle uses INST"),
    (b"cposix\nsystem\n.", "it asks for posix.system"),
    (b"", "not a readable"),
    (b"\x80\x02" + b"(" * 100 + b".", "not a readable"),
    (b"\x80\x02K\x01.", "no module with tensors"),
])  # fmt: skip
def test_pickles_that_torch_does_not_write_are_refused(
    program: Path, pickle_bytes: bytes, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        torchscript.read(pickled(program, pickle_bytes))


def test_module_that_contains_itself_is_refused(program: Path) -> None:
    data = b"\x80\x02" + MODULE + b"q\x01}X\x01\x00\x00\x00wh\x01sb."

    with pytest.raises(DataError, match="nested more than 64 deep"):
        torchscript.read(pickled(program, data))


def test_modules_that_multiply_are_refused(program: Path) -> None:
    data = io.BytesIO()
    data.write(b"\x80\x02" + MODULE + b"}bq\x00")
    for level in range(40):  # 2^40 paths lead to the innermost
        inner = b"h" + bytes([level])
        data.write(MODULE + b"}(X\x01\x00\x00\x00a" + inner + b"X\x01\x00\x00\x00b" + inner + b"ub")
        data.write(b"q" + bytes([level + 1]))
    data.write(b".")

    with pytest.raises(DataError, match="countless values|more than 200,000 parts"):
        torchscript.read(pickled(program, data.getvalue()))


def test_stand_ins_cannot_be_changed_for_the_next_file(program: Path) -> None:
    # what sets attributes: a state of (dict, dict of slots)
    change = b"}X\x08\x00\x00\x00_functionNs\x86b"
    attack = module_with(b"ctorch._utils\n_rebuild_tensor_v2\nN" + change)

    with pytest.raises(DataError):
        torchscript.read(pickled(program, attack))

    assert len(torchscript.read(program)) == 9


def test_archive_that_claims_more_than_it_has_is_refused(program: Path) -> None:
    with zipfile.ZipFile(program, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program/data/99", bytes(10 << 20))

    with pytest.raises(DataError, match=r"claims to hold 10,\d{3},\d{3} bytes"):
        torchscript.read(program)


def test_compressed_numbers_are_refused(program: Path) -> None:
    with pytest.raises(DataError, match="is compressed"):
        torchscript.read(rewritten(program, {}, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("name", ["/etc/passwd", "ROOT/../../x", "ROOT\\..\\x"])
def test_paths_out_of_the_archive_are_refused(program: Path, name: str) -> None:
    with pytest.raises(DataError, match="it holds the path"):
        torchscript.read(rewritten(program, {}, extra={name: b"x"}))


def test_two_trees_or_two_entries_of_one_name_are_refused(program: Path) -> None:
    with pytest.raises(DataError, match="exactly one"):
        torchscript.read(rewritten(program, {}, extra={"other/data.pkl": b"x"}))
    with pytest.warns(UserWarning, match="Duplicate"):
        doubled = rewritten(program, {}, extra={"ROOT/data/0": b"x"})
    with pytest.raises(DataError, match="two entries of one name"):
        torchscript.read(doubled)


def test_numbers_of_the_other_endianness_are_refused(program: Path) -> None:
    with pytest.raises(DataError, match="not little-endian"):
        torchscript.read(rewritten(program, {"byteorder": lambda _: b"big"}))


def test_flipped_bit_in_a_tensor_is_noticed(program: Path) -> None:
    data = bytearray(program.read_bytes())
    data[data.index(struct.pack("<f", 2.5))] ^= 1
    program.write_bytes(data)

    with pytest.raises(DataError, match="CRC"):
        torchscript.read(program)


def test_damaged_archive_is_a_data_error_or_read_whole(program: Path) -> None:
    whole, rng = program.read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        program.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        try:
            assert torchscript.read(program)
        except DataError as error:
            assert error.fix  # anything else that is raised fails the test


def test_missing_file_is_an_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        torchscript.read(tmp_path / "none.pt")
