"""What reading a pickle would cost, from its instructions alone: nothing is built.

A pickle of a few hundred bytes can stand for 2**60 values, because one value may be named in many
places. Whoever walks all of them, or hashes a tuple of tuples, never comes back, and Ctrl-C does
not reach a hash. `check` follows the instructions with the sizes of values in place of values, and
refuses such a file.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_LARGEST_KEY = 10_000  # values in one key of a dictionary or one member of a set
_FREE = 10_000_000  # values that any file may stand for
_VALUES_PER_BYTE = 50  # and this many more for each of its bytes
_PLACES = {"PUT", "LONG_BINPUT"}  # name a place in a list that is made that long at once

_MARK = object()


class _Value:
    """One value of the pickle. hash_cost: values that a hash of it visits; 1 for all but tuples."""

    __slots__ = ("hash_cost", "parts")

    def __init__(self, parts: list["_Value"] | None = None, hash_cost: int = 1):
        self.parts = parts
        self.hash_cost = hash_cost


_ATOM = _Value()


def check(data: bytes) -> int:
    """Follow the first pickle in `data` and return how many bytes it takes. Raises as `follow`."""
    return follow(io.BytesIO(data), len(data))


def check_file(path: Path, count: int) -> None:
    """Follow the first `count` pickles of a file, one behind the other. Raises as `follow`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(count):
            follow(file, size)


def follow(file: BinaryIO, size: int) -> int:
    """Follow the pickle at the present place of a file of `size` bytes; returns where it ends.

    Raises ValueError for bytes that are no instructions. Raises pickle.UnpicklingError if the
    instructions make no sense, want room that a file of this size does not need, stand for far
    more values than it has bytes, or make a key of a dictionary or a member of a set that is
    larger than any key of data.
    """
    stack: list = []
    memo: dict[int, _Value] = {}
    hashed = 0
    limit = _FREE + _VALUES_PER_BYTE * size
    for instruction, argument, place in pickletools.genops(file):
        name = instruction.name
        if name in _PLACES and argument > size:
            raise pickle.UnpicklingError(
                f"asks for room for {argument:,} objects, which was refused"
            )
        try:
            hashed += _step(name, argument, stack, memo)
        except (IndexError, KeyError, AttributeError):
            raise pickle.UnpicklingError(f"{name} at byte {place} has nothing to work on") from None
        if hashed > limit:
            raise _too_large()
    if not stack or not isinstance(stack[-1], _Value) or _unfolded(stack[-1], limit) > limit:
        raise _too_large()
    return file.tell()


def _too_large() -> pickle.UnpicklingError:
    return pickle.UnpicklingError("a small file that stands for countless values; it was not read")


def _step(name: str, argument: object, stack: list, memo: dict[int, _Value]) -> int:
    """Do one instruction; returns how many values it hashes."""
    change = _CHANGES.get(name)
    if change is not None:
        return change(stack) or 0
    if name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "INST":
        stack.append(_Value(_to_mark(stack)))
    elif name not in ("PROTO", "FRAME", "STOP", "READONLY_BUFFER"):
        stack.append(_ATOM)  # a number, a text, a name of a class
    return 0


def _to_mark(stack: list) -> list[_Value]:
    """Take what lies above the last mark, and the mark."""
    parts = []
    while (value := stack.pop()) is not _MARK:
        parts.append(value)
    parts.reverse()
    return parts


def _hashes(keys: list[_Value]) -> int:
    """Return what hashing the keys costs. Raises UnpicklingError for one that is not a key of
    data.
    """
    cost = 0
    for key in keys:
        if key.hash_cost > _LARGEST_KEY:
            raise _too_large()
        cost += key.hash_cost
    return cost


def _tuple(stack: list, parts: list[_Value]) -> None:
    cost = 1 + sum(part.hash_cost for part in parts)
    stack.append(_Value(parts, min(cost, _LARGEST_KEY + 1)))


def _list(stack: list) -> None:
    stack.append(_Value(_to_mark(stack)))


def _dictionary(stack: list) -> int:
    parts = _to_mark(stack)
    stack.append(_Value(parts))
    return _hashes(parts[::2])


def _frozen_set(stack: list) -> int:
    parts = _to_mark(stack)
    stack.append(_Value(parts))
    return _hashes(parts)


def _append(stack: list) -> None:
    value = stack.pop()
    stack[-1].parts.append(value)


def _extend(stack: list) -> None:
    parts = _to_mark(stack)
    stack[-1].parts.extend(parts)


def _add_members(stack: list) -> int:
    parts = _to_mark(stack)
    stack[-1].parts.extend(parts)
    return _hashes(parts)


def _set_item(stack: list) -> int:
    value = stack.pop()
    key = stack.pop()
    stack[-1].parts.extend((key, value))
    return _hashes([key])


def _set_items(stack: list) -> int:
    parts = _to_mark(stack)
    stack[-1].parts.extend(parts)
    return _hashes(parts[::2])


def _build(stack: list) -> None:
    state = stack.pop()
    made = stack[-1]
    if made.parts is None:
        raise IndexError
    made.parts.append(state)


def _take(count: int) -> Callable[[list], None]:
    """Return an instruction that makes one object of the last `count` values."""

    def change(stack: list) -> None:
        parts = [stack.pop() for _ in range(count)]
        stack.append(_Value(parts))

    return change


def _tuple_of(count: int) -> Callable[[list], None]:
    def change(stack: list) -> None:
        parts = [stack.pop() for _ in range(count)]
        _tuple(stack, parts[::-1])

    return change


_CHANGES: dict[str, Callable[[list], int | None]] = {
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_LIST": lambda stack: stack.append(_Value([])),
    "EMPTY_DICT": lambda stack: stack.append(_Value([])),
    "EMPTY_SET": lambda stack: stack.append(_Value([])),
    "EMPTY_TUPLE": lambda stack: stack.append(_ATOM),
    "LIST": _list,
    "DICT": _dictionary,
    "FROZENSET": _frozen_set,
    "TUPLE": lambda stack: _tuple(stack, _to_mark(stack)),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _extend,
    "ADDITEMS": _add_members,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "POP": lambda stack: stack.pop() and None,
    "POP_MARK": lambda stack: _to_mark(stack) and None,
    "DUP": lambda stack: stack.append(stack[-1]),
    "REDUCE": _take(2),
    "NEWOBJ": _take(2),
    "NEWOBJ_EX": _take(3),
    "OBJ": _list,
    "STACK_GLOBAL": _take(2),
    "BINPERSID": _take(1),
    "BUILD": _build,
}


def _unfolded(root: _Value, limit: int) -> int:
    """Return how many values a walk over all of `root` meets: shared values count in every place.

    A value that holds itself ends there, as in a walk that remembers its way. Stops above `limit`.
    """
    sizes: dict[int, int] = {}
    open_values: set[int] = set()
    pending: list[tuple[_Value, Iterator[_Value]]] = [(root, iter(root.parts or ()))]
    open_values.add(id(root))
    totals = [1]
    while pending:
        value, rest = pending[-1]
        part = next(rest, None)
        if part is None:
            pending.pop()
            open_values.discard(id(value))
            size = min(totals.pop(), limit + 1)
            sizes[id(value)] = size
            if not pending:
                return size
            totals[-1] += size
        elif not part.parts:
            totals[-1] += 1
        elif id(part) in sizes:
            totals[-1] += sizes[id(part)]
        elif id(part) not in open_values:
            open_values.add(id(part))
            pending.append((part, iter(part.parts)))
            totals.append(1)
    return 0
