"""The tensors of a TorchScript archive, such as OpenAI's CLIP files, without building or running
its code.

An archive is a zip with one root folder: `data.pkl` (a pickle of the module tree), `data/<key>`
(the raw numbers), `code/` (never opened) and more. The pickle is read with everything it may name
replaced by inert stand-ins of ours: it can neither import nor call anything else. Every size is
checked against the file before memory is taken.
Source: pytorch/pytorch: torch/csrc/jit/serialization (export_module, import, unpickler);
docs/specs/clip-backbone.md, section 1.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.text import pickle_cost

_LARGEST_PICKLE = 64 << 20  # bytes; that of ViT-L/14 has less than 1 MB
_MOST_PARTS = 200_000  # modules and values that a walk through the tree may meet
_DEEPEST = 64
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# what the pickles of torch are made of; others, such as those that copy or extend, have no business
# there
_OPCODES = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT"
    " BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS"
    " EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL"
    " REDUCE NEWOBJ BUILD BINPERSID".split()
)
_TRUST = "Nothing in it was executed. Download the file again, or use one from a source you trust."


def is_program(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: a zip that holds constants besides its
    data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                name.count("/") == 1 and name.endswith("/constants.pkl")
                for name in archive.namelist()
            )
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of the archive by their dotted names, on the CPU, in its
    order and types.

    Attributes that are no tensors are left out. Two names of one storage share its memory, as they
    did when saved.
    Raises DataError: missing, damaged, not such an archive, hostile (names what it asked for),
    larger than the file.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            opened = _Archive(archive, path.stat().st_size)
            return opened.tensors(_walk(_Reader(opened.bytes("data.pkl", _LARGEST_PICKLE)).tree()))
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path, fix="Check the path.") from error
    except _Refused as error:
        raise DataError(f"refused: {error}", where=path, fix=_TRUST) from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error}", where=path, fix="Check the file and its permissions."
        ) from error
    except _MALFORMED as error:
        raise DataError(
            f"not a readable TorchScript archive: {error or type(error).__name__}",
            where=path,
            fix=_TRUST,
        ) from error


class _Refused(Exception):
    """The archive asks for what no archive of weights needs."""


_MALFORMED = (  # what zipfile and pickle raise on damaged files
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    MemoryError,
)


class _Storage(NamedTuple):
    """Where numbers lie, as the pickle says: what it is stored under, its type, how many. Cannot be
    changed.
    """

    key: str
    dtype: torch.dtype
    count: int


class _View(NamedTuple):
    """A tensor, as the pickle says; checked to lie within its storage. Cannot be changed."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Archive:
    """The entries of the zip that matter, by their name below the root folder."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int):
        self._archive, self._file_bytes = archive, file_bytes
        names = [info.filename for info in archive.infolist()]
        if len(set(names)) != len(names):
            raise _Refused("it holds two entries of one name")
        if bad := next(
            (n for n in names if n.startswith("/") or "\\" in n or ".." in n.split("/")), None
        ):
            raise _Refused(f"it holds the path {bad!r}")
        roots = [
            n.removesuffix("/data.pkl")
            for n in names
            if n.count("/") == 1 and n.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise ValueError("it does not hold exactly one */data.pkl")
        prefix = f"{roots[0]}/"
        self._entries = {
            i.filename.removeprefix(prefix): i
            for i in archive.infolist()
            if i.filename.startswith(prefix)
        }
        data = [
            info
            for name, info in self._entries.items()
            if name == "data.pkl" or name.startswith("data/")
        ]
        if (
            held := sum(info.file_size for info in data)
        ) > file_bytes:  # torch stores them as they are
            raise _Refused(f"it claims to hold {held:,} bytes in a file of {file_bytes:,}")
        if "byteorder" in self._entries and self.bytes("byteorder", 16) != b"little":
            raise ValueError("its numbers are not little-endian")

    def bytes(self, name: str, largest: int) -> bytes:
        """Return an entry, its checksum verified."""
        if name not in self._entries:
            raise ValueError(f"{name} is missing")
        info = self._entries[name]
        if info.file_size > largest:
            raise _Refused(f"{name} has {info.file_size:,} bytes")
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Refused(f"{name} is compressed, which torch never does")
        return self._archive.read(info)

    def tensors(self, views: Mapping[str, _View]) -> dict[str, Tensor]:
        """Return what the views show. Every storage is read once."""
        storages = {
            storage: self._numbers(storage) for storage in {view.storage for view in views.values()}
        }
        return {
            name: storages[v.storage].as_strided(v.size, v.stride, v.offset)
            for name, v in views.items()
        }

    def _numbers(self, storage: _Storage) -> Tensor:
        raw = self.bytes(f"data/{storage.key}", self._file_bytes)
        if len(raw) != storage.count * storage.dtype.itemsize:
            raise ValueError(
                f"data/{storage.key} has {len(raw):,} bytes, not {storage.count:,} of"
                f" {storage.dtype}"
            )
        return (
            torch.frombuffer(bytearray(raw), dtype=storage.dtype)
            if raw
            else torch.empty(0, dtype=storage.dtype)
        )


class _Module:
    """Stands for an object of any class of the archive: what it was to be filled with, kept as it
    is.
    """

    __slots__ = ("state",)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Call:
    """A function the pickle may call. It has no attributes that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]):
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self._data = data

    def tree(self) -> object:
        """Return the pickle's object. Its opcodes are looked at first: some can exhaust the memory
        by a single number.
        """
        for opcode, argument, _ in pickletools.genops(self._data):
            if opcode.name not in _OPCODES:
                raise _Refused(f"its pickle uses {opcode.name}")
            if opcode.name == "LONG_BINPUT" and argument > len(self._data):
                raise _Refused(f"its pickle wants room for {argument:,} objects")
        pickle_cost.check(self._data)
        return self.load()

    def find_class(self, module: str, name: str) -> object:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _Call(_view)
        if module == "collections" and name == "OrderedDict":
            return dict  # always empty here: the hooks of a tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle":  # older archives tag the types of lists with these
            return _Call(lambda value, *_: value)
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> _Storage:
        """Return a storage from ("storage", its type, key, device, count). The device it was made
        on does not matter.
        """
        kind, dtype, key, _, count = pid
        if (
            kind != "storage"
            or not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or type(count) is not int
        ):
            raise ValueError(f"{kind!r} is not a storage type")
        return _Storage(key, dtype, count)


def _view(storage: object, offset: object, size: object, stride: object, *_: object) -> _View:
    if (
        not isinstance(storage, _Storage)
        or not isinstance(size, tuple)
        or not isinstance(stride, tuple)
    ):
        raise ValueError("a tensor is not described by storage, size and stride")
    if len(size) != len(stride) or any(
        type(n) is not int or n < 0 for n in (offset, *size, *stride)
    ):
        raise ValueError(f"a tensor with offset {offset}, size {size}, stride {stride}")
    count, last = (
        math.prod(size),
        offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)),
    )
    if count > storage.count or (count and last >= storage.count):
        raise _Refused(
            f"a tensor {size} with strides {stride} reaches beyond its {storage.count:,} numbers"
        )
    return _View(storage, offset, size, stride)


def _walk(root: object) -> dict[str, _View]:
    """Return the tensors below a module, named by the attributes that lead to them."""
    found: dict[str, _View] = {}
    waiting: list[tuple[tuple[str, ...], object]] = [((), root)]
    for _ in range(_MOST_PARTS):
        if not waiting:
            break
        path, value = waiting.pop()
        if isinstance(value, _View) and path:
            found[".".join(path)] = value
        elif isinstance(value, _Module) and isinstance(
            state := getattr(value, "state", None), dict
        ):
            if len(path) == _DEEPEST:
                raise _Refused(f"its modules are nested more than {_DEEPEST} deep")
            # the last pushed is the next taken: reversed, so that the order of the file stays
            waiting.extend(((*path, str(name)), part) for name, part in reversed(state.items()))
    if waiting:
        raise _Refused(f"it has more than {_MOST_PARTS:,} parts")
    if not found:
        raise ValueError("it holds no module with tensors")
    return found
