"""One row of a parity table: a name, how far we are off, what is allowed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"


@dataclass(frozen=True)
class Tolerance:
    """|ours - expected| <= absolute + relative * |expected|, for every element. The default is the
    project's 1e-4.
    """

    absolute: float = 1e-4
    relative: float = 0.0

    @classmethod
    def parse(cls, words: object, default: "Tolerance | None" = None) -> "Tolerance":
        """Return what a case states: a number, "1e-6", "rtol 2e-4", "relative 1e-3", "max abs diff
        1e-4", "exact", "equal".

        `default` (1e-4) for None. ValueError if the words hold neither a number nor exact/equal.
        """
        if words is None:
            return default or cls()
        if isinstance(words, (int, float)):
            return cls(float(words))
        if found := re.search(rf"(?:rtol|relative)\D*{_NUMBER}", words):
            return cls(0.0, float(found[1]))
        if found := re.search(rf"(?<![\w.]){_NUMBER}", words):
            return cls(float(found[1]))
        if re.search(r"exact|equal", words):
            return cls(0.0)
        raise ValueError(f"no tolerance in {words!r}")

    def __str__(self) -> str:
        parts = [f"{self.absolute:.3g}"] if self.absolute or not self.relative else []
        return " + ".join(parts + ([f"{self.relative:.3g} x"] if self.relative else []))


EXACT = Tolerance(0.0)


@dataclass(frozen=True)
class Comparison:
    """One expected value, compared. difference: largest absolute difference (0 or 1 for words);
    note: why not ok.
    """

    name: str
    difference: float
    tolerance: str
    ok: bool
    note: str = ""


def close(
    name: str, ours: object, expected: object, tolerance: Tolerance | None = None
) -> Comparison:
    """Compare numbers or arrays of numbers, element by element in float64. Shapes and the places of
    NaN must agree.
    """
    tolerance = tolerance or Tolerance()
    a, b = np.asarray(ours), np.asarray(expected)
    if a.shape != b.shape:
        return Comparison(
            name, float("nan"), str(tolerance), False, f"shape {a.shape}, expected {b.shape}"
        )
    if a.dtype.kind not in "biufc" or b.dtype.kind not in "biufc":
        return equal(name, ours, expected)
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # also infinities
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
        ok = same | (difference <= tolerance.absolute + tolerance.relative * np.abs(b))
    worst = float(np.max(difference, initial=0.0))
    note = "" if ok.all() else f"{np.count_nonzero(~ok):,} of {ok.size:,} values beyond tolerance"
    return Comparison(name, worst, str(tolerance), bool(ok.all()), note)


def equal(name: str, ours: object, expected: object) -> Comparison:
    """Compare words, ids, bytes, lists, or integer arrays: equal or not."""
    a, b = _plain(ours), _plain(expected)
    note = "" if a == b else f"{_short(a)}, expected {_short(b)}"
    return Comparison(name, float(a != b), "equal", a == b, note)


def between(
    name: str, value: object, ends: tuple[object, object], tolerance: Tolerance = EXACT
) -> Comparison:
    """Every element of `value` lies between the two `ends`, in either order; for what
    depends on the order of ties.
    """
    x = np.asarray(value, dtype=np.float64)
    a = np.asarray(ends[0], dtype=np.float64)
    b = np.asarray(ends[1], dtype=np.float64)
    if not x.shape == a.shape == b.shape:
        return Comparison(
            name, float("nan"), "interval", False, f"shape {x.shape}, expected {a.shape}"
        )
    outside = np.maximum(np.minimum(a, b) - x, x - np.maximum(a, b))
    worst = float(np.max(outside, initial=0.0))
    ok = bool((outside <= tolerance.absolute).all())
    return Comparison(
        name, worst, f"interval, {tolerance}", ok, "" if ok else "outside the interval"
    )


def close_tree(
    name: str, ours: Mapping, expected: Mapping, tolerance: Tolerance | None = None
) -> Iterator[Comparison]:
    """`close` for every leaf of nested dictionaries of numbers; a value that we lack is a row that
    fails.
    """
    for key, value in expected.items():
        path = f"{name}.{key}"
        if not isinstance(ours, Mapping) or key not in ours:
            yield Comparison(
                path, float("nan"), str(tolerance or Tolerance()), False, "we have no such value"
            )
        elif isinstance(value, Mapping):
            yield from close_tree(path, ours[key], value, tolerance)
        else:
            yield close(path, ours[key], value, tolerance)


def leaves(name: str, value: object) -> Iterator[str]:
    """Yield the dotted names of all leaves of nested dictionaries: what must become rows."""
    if not isinstance(value, Mapping):
        yield name
        return
    for key, inner in value.items():
        yield from leaves(f"{name}.{key}", inner)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
