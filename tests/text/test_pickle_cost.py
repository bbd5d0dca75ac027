"""Pickles that would never end are refused from their instructions alone; data passes."""

import pickle
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.text import pickle_cost, pickles

# t0 = (), tn = (tn-1, tn-1): as a key its hash visits 2**60 values; lists for whoever walks them
TUPLES = (
    b"\x80\x02}("
    + b")q\x00"
    + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    + b"K\x01u."
)
LISTS = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"."
SETS = b"\x80\x04\x8f(" + TUPLES[4:-4] + b"\x90."


@pytest.mark.parametrize("bomb", [TUPLES, LISTS, SETS], ids=["key", "walk", "member"])
def test_a_few_bytes_that_stand_for_countless_values_are_refused_at_once(
    bomb: bytes, tmp_path: Path
) -> None:
    (tmp_path / "bomb.pkl").write_bytes(bomb)
    start = time.process_time()

    with pytest.raises(DataError, match="countless values"):
        pickles.read(tmp_path / "bomb.pkl")

    assert time.process_time() - start < 20


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        {"video1": ["a dog runs", "a dog"], ("a", 1): {1, 2}, None: 1.5, b"x": frozenset({3})},
        OrderedDict(a=(1, (2, (3, 4))), b=[]),
        [["same"] * 3] * 100,
        np.arange(6.0).reshape(2, 3),
        (),
        "text",
    ],
    ids=["captions", "ordered", "shared", "array", "nothing", "text"],
)
def test_data_passes_and_its_length_is_found(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)

    assert pickle_cost.check(data + b"what follows") == len(data)


def test_a_list_that_holds_itself_ends() -> None:
    value: list = [1]
    value.append(value)

    pickle_cost.check(pickle.dumps(value))


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x02a.", b"\x80\x02h\x05."])
def test_instructions_without_anything_to_work_on_are_no_pickle(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        pickle_cost.check(data)
