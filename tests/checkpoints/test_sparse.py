"""The small form of weights with many zeros: the same numbers back, and nothing believed that a
file claims.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Mismatch
from pipeline.checkpoints import partial, sparse
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.toolkit_file import MODEL, VERSION
from pipeline.errors import DataError


def thinned(share: float, *shape: int) -> torch.Tensor:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return tensor * (torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < share)


@settings(max_examples=30, deadline=None)
@given(
    share=st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0]),
    rows=st.integers(0, 70),
    columns=st.integers(1, 60),
)
def test_packing_and_unpacking_gives_the_same_numbers(
    share: float, rows: int, columns: int
) -> None:
    weights = {"a": thinned(share, rows, columns), "count": torch.tensor(3)}

    again = sparse.unpacked(sparse.packed(weights))

    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert again["a"].dtype == weights["a"].dtype


def test_size_is_four_bytes_for_what_is_left_and_one_bit_for_every_place() -> None:
    weights = {"a": thinned(0.3, 200, 100)}

    stored = sparse.stored_bytes(sparse.packed(weights))

    assert stored == 4 * int(weights["a"].count_nonzero()) + 200 * 100 // 8
    assert sparse.stored_bytes(weights) == 4 * 200 * 100


def test_full_tensors_and_counters_stay_as_they_are() -> None:
    weights = {"full": thinned(1.0, 100, 100), "count": torch.zeros(5000, dtype=torch.int64)}

    assert sparse.packed(weights) == weights


def entry(**changes: object) -> dict:
    good = {
        "shape": [2, 8],
        "kept": torch.tensor([255, 1], dtype=torch.uint8),
        "values": torch.ones(9),
    }
    return {"w": good | changes}


@pytest.mark.parametrize(("changes", "told"), [
    ({"values": torch.ones(8)}, "8 values for 9 places"),
    ({"shape": [3, 8]}, "2 bytes of bits for the shape"),
    ({"shape": [-2, -8]}, "has the shape"),
    ({"shape": [True, 16]}, "has the shape"),
    ({"kept": torch.ones(1, dtype=torch.uint8).expand(1 << 40)}, "of another kind"),
    ({"kept": torch.ones(2)}, "of another kind"),
    ({"values": torch.ones(9, dtype=torch.int64)}, "of another kind"),
    ({"values": None}, "neither a tensor nor a packed one"),
    ({"more": 1}, "neither a tensor nor a packed one"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(Mismatch, match=told) as caught:
        sparse.unpacked(entry(**changes))

    assert caught.value.fix


def test_damaged_packed_weights_of_a_checkpoint_name_the_file(tmp_path) -> None:
    head = {"format": MODEL, "version": VERSION}
    write_archive(tmp_path / "best.pt", head | {"weights": entry(values=torch.ones(1))})

    with pytest.raises(DataError, match="w: 1 values for 9 places") as caught:
        partial.read_model(tmp_path / "best.pt")

    assert caught.value.where == str(tmp_path / "best.pt")
