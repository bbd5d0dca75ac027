"""Renaming is strict and can be undone."""

import pytest
import torch

from models.base import Mismatch
from models.parts.keys import Rule, count_parts, in_float32, part_of, to_ours, to_theirs

RULES = [
    Rule("net.fc.", "dense.", "(weight|bias)"),
    Rule("proj", "projection", "", torch.t, torch.t),
]


def test_names_and_tensors_come_back_as_they_were() -> None:
    theirs = {"net.fc.bias": torch.ones(2), "proj": torch.arange(6.0).view(2, 3)}

    ours = to_ours(theirs, RULES)
    back = to_theirs(ours, RULES)

    assert list(ours) == ["dense.bias", "projection"]
    assert ours["projection"].shape == (3, 2)
    assert list(back) == list(theirs) and torch.equal(back["proj"], theirs["proj"])


@pytest.mark.parametrize("name", ["net.fc.gain", "fc.weight", "projx", 3])
def test_a_name_that_no_rule_knows_is_told(name: object) -> None:
    with pytest.raises(Mismatch, match=f"1 unknown entries: {name}"):
        to_ours({name: torch.ones(1)}, RULES)


def test_a_value_that_is_no_tensor_is_told_and_an_ignored_name_is_left_out() -> None:
    with pytest.raises(Mismatch, match="1 unknown entries: proj"):
        to_ours({"proj": "text"}, RULES)
    assert to_ours({"step": 3}, RULES, {"step": "no weight"}) == {}


def test_parts_of_a_state_dict() -> None:
    state = {"clip.a.0.w": 1, "clip.a.0.b": 2, "clip.a.1.w": 3, "other": 4}

    assert part_of(state, "clip.") == {"a.0.w": 1, "a.0.b": 2, "a.1.w": 3}
    assert count_parts(state, "clip.a.") == 2


def test_only_floating_point_becomes_float32() -> None:
    found = in_float32({"half": torch.ones(1).half(), "count": torch.tensor(3)})

    assert (found["half"].dtype, found["count"].dtype) == (torch.float32, torch.int64)
