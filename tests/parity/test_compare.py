"""Rows: differences, tolerances in numbers and words."""

import numpy as np
import pytest

from pipeline.parity.compare import EXACT, Tolerance, between, close, close_tree, equal, leaves


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (0.0001, Tolerance(1e-4)),
        (0, Tolerance(0.0)),
        (None, Tolerance(1e-4)),
        ("1e-6", Tolerance(1e-6)),
        ("rtol 2e-4", Tolerance(0, 2e-4)),
        ("relative 1e-2 (Adam amplifies rounding of tiny gradients)", Tolerance(0, 1e-2)),
        ("max abs diff 1e-4 float32", Tolerance(1e-4)),
        ("absolute 1e-9", Tolerance(1e-9)),
        ("1e-9 after rounding to one decimal", Tolerance(1e-9)),
        ("exact (1e-9)", Tolerance(1e-9)),
        ("exact", Tolerance(0.0)),
        ("equal", Tolerance(0.0)),
    ],
)
def test_tolerances_are_read_as_cases_state_them(words: object, expected: Tolerance) -> None:
    assert Tolerance.parse(words) == expected


def test_words_without_a_tolerance_are_an_error() -> None:
    with pytest.raises(ValueError, match="no tolerance"):
        Tolerance.parse("roughly")


def test_the_largest_difference_decides() -> None:
    row = close("x", [1.0, 2.0], [1.0, 2.1], Tolerance(0.05))

    assert (row.ok, round(row.difference, 6)) == (False, 0.1)
    assert "1 of 2 values" in row.note


def test_relative_tolerance_is_relative_to_each_value() -> None:
    assert close("x", [1.001, 1001.0], [1.0, 1000.0], Tolerance(0, 2e-3)).ok
    assert not close("x", [1.1, 1001.0], [1.0, 1000.0], Tolerance(0, 2e-3)).ok


@pytest.mark.parametrize(
    ("ours", "expected"),
    [([1.0], [[1.0]]), ([1.0], [1.0, 1.0]), ([np.nan], [1.0]), ([1.0], [np.nan])],
)
def test_other_shapes_and_nan_are_not_ok(ours: list, expected: list) -> None:
    assert not close("x", ours, expected).ok


def test_nan_and_infinity_in_the_same_places_are_ok() -> None:
    assert close("x", [np.nan, np.inf, 1], [np.nan, np.inf, 1], EXACT).ok


def test_words_ids_and_bytes_are_equal_or_not() -> None:
    assert equal("x", ["a", "b"], np.array(["a", "b"])).ok
    assert not equal("x", b"a", b"b").ok
    assert close("x", np.array(["a"]), np.array(["a"])).ok


def test_interval_takes_its_ends_in_either_order() -> None:
    assert between("x", [2, 5], ([1, 9], [3, 5])).ok
    assert not between("x", [4, 5], ([1, 9], [3, 5])).ok


def test_a_value_we_lack_is_a_row_that_fails() -> None:
    rows = list(close_tree("e", {"a": {"R1": 1.0}}, {"a": {"R1": 1.0, "R5": 2.0}}))

    assert [(row.name, row.ok) for row in rows] == [("e.a.R1", True), ("e.a.R5", False)]


def test_leaves_are_all_values_that_are_no_dictionaries() -> None:
    assert list(leaves("e", {"a": {"b": 1, "c": [1, 2]}, "d": 0})) == ["e.a.b", "e.a.c", "e.d"]
