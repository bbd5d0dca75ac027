"""What pickles hold of numpy, read by stand-ins of ours: arrays of numbers and single numbers,
nothing else.

Under numpy's names an unpickler finds the classes and functions below, which check what they are
given before memory is
taken: a file can reach no function of numpy, ask for no array larger than its data, and change no
type that the whole process shares (as filling a real `numpy.dtype` would). For published
checkpoints and gensim's vectors. Source of names and states: numpy's pickles as numpy 1 and 2 write
them (docs/specs/dual-encoding.md, section 2.9).
"""

from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np

_CODES = ("f4", "f8", "i4", "i8", "u4", "b1")  # word vectors and counts; best_rsum, epoch, Eiters


def stand_ins() -> dict[tuple[str, str], Callable]:
    """Return what to find under each (module, name) of numpy."""
    functions = {
        (f"{module}.multiarray", name): function
        for module in ("numpy.core", "numpy._core")  # numpy 1 and 2
        for name, function in (("_reconstruct", _empty), ("scalar", _number))
    }
    return functions | {("numpy", "ndarray"): Array, ("numpy", "dtype"): _Type}


class Array:
    """Stands for an array; `values` is one of numbers in this machine's byte order, owned."""

    def __init__(self) -> None:
        self.values = np.zeros(0, np.float32)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            raise UnpicklingError("a numpy array without version, shape, type, order and data")
        _, shape, kind, by_columns, data = state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise UnpicklingError(f"a numpy array of the shape {shape!r}")
        flat = np.frombuffer(_bytes(data), kind.dtype)
        self.values = flat.reshape(shape, order="F" if by_columns else "C").astype(
            kind.dtype.newbyteorder("=")
        )


class _Type:
    """Stands for numpy.dtype: a code such as f4, and a byte order that the pickle gives
    afterwards.
    """

    def __init__(self, code: object, align: object = False, copy: object = True):
        if code not in _CODES:
            raise UnpicklingError(f"the numpy type {code!r}; only {', '.join(_CODES)} are read")
        self.code, self._order = code, "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise UnpicklingError(f"the numpy type {self.code} with the state {state!r}")
        self._order = order

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"{self._order}{self.code}")


def _empty(kind: object, shape: object, code: object) -> Array:
    """numpy's pickles make an empty array first, and fill it afterwards."""
    if kind is not Array or shape != (0,):
        raise UnpicklingError(f"a numpy array of the first shape {shape!r}")
    return Array()


def _number(kind: object, data: object) -> int | float | bool:
    if not isinstance(kind, _Type) or len(_bytes(data)) != kind.dtype.itemsize:
        raise UnpicklingError("a numpy number without its type, or of another size")
    return np.frombuffer(_bytes(data), kind.dtype)[0].item()


def _bytes(data: object) -> bytes:
    if not isinstance(data, bytes):
        raise UnpicklingError(f"numpy data of type {type(data).__name__}")
    return data
