"""Pickles of the published systems, read without running anything they name. They are never
written.

Only plain containers, strings and numbers come out, and objects of the one class a caller admits,
as empty shells that hold their attributes. Everything else (`os.system`, `builtins.eval`, ...) is
refused before it is looked up.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import DataError
from pipeline.text import numpy_values, pickle_cost

_LARGEST = 512 << 20  # bytes; the largest published file is 6 MB
_BUILTINS = {"builtins", "__builtin__"}  # Python 3 and 2
_HARMLESS = {"set": set, "frozenset": frozenset}


class _Reader(pickle.Unpickler):
    def __init__(
        self, data: bytes, admitted: Mapping[str, type], numbers: Mapping[tuple[str, str], Callable]
    ):
        super().__init__(io.BytesIO(data), encoding="latin1")  # strings of Python 2 come as bytes
        self._data, self._admitted, self._numbers = data, admitted, numbers

    def value(self) -> object:
        """Return what the pickle holds. Its instructions are read first: nine bytes can ask for
        gigabytes.

        Reading them also finds texts and numbers that claim to be longer than the file.
        """
        pickle_cost.check(self._data)
        return self.load()

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) in self._numbers:
            return self._numbers[module, name]
        found = _HARMLESS.get(name) if module in _BUILTINS else self._admitted.get(name)
        if found is None:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which was refused")
        return found

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("asks for an object outside the file, which was refused")


def read(path: Path, shells: tuple[str, ...] = (), arrays: bool = False) -> object:
    """Return what a pickle holds. Objects of classes named in `shells` (of any module) come back as
    shells with attributes.

    arrays: admit numpy's arrays and numbers, as `numpy_values.Array` and Python's own.
    Raises DataError if the file is unreadable, damaged, larger than 512 MB, asks for anything else,
    or for more memory than a file of its size needs.
    """
    # fresh classes for every file: nothing a file does to one can reach the next
    admitted = {name: type(name, (), {}) for name in shells}
    fix = (
        "Do not use this file unless you trust who made it; ask them for the same content as JSON"
        " or text."
    )
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"larger than {_LARGEST >> 20} MB", where=path, fix=fix)
        return _Reader(
            path.read_bytes(), admitted, numpy_values.stand_ins() if arrays else {}
        ).value()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    except (RecursionError, MemoryError) as error:
        raise DataError(
            "nested too deeply to be a data file; not read", where=path, fix=fix
        ) from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        raise DataError(f"not a pickle of plain data: {error}", where=path, fix=fix) from error
