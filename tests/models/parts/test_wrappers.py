from models.parts.wrappers import bare, in_dictionary, unwrapped

ANCHOR = "clip.conv.weight"
STATE = {"clip.conv.weight": 1, "clip.proj": 2}


def test_prefixes_go_whatever_they_are_called() -> None:
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "model.module.", "student."):
        assert bare({prefix + name: value for name, value in STATE.items()}, ANCHOR) == STATE


def test_prefix_of_a_compiled_part_goes() -> None:
    compiled = {"clip._orig_mod.conv.weight": 1, "clip._orig_mod.proj": 2}

    assert bare(compiled, ANCHOR) == STATE


def test_wrappers_go_in_any_order() -> None:
    for outer in ("state_dict", "model_state_dict", "model"):
        for inner in ("state_dict", "model"):
            wrapped = {outer: {inner: {f"module.{n}": v for n, v in STATE.items()}}, "epoch": 3}
            assert bare(wrapped, ANCHOR) == STATE


def test_what_lies_beside_is_kept() -> None:
    wrapped = {"epoch": 3, "model": {"state_dict": STATE, "step": 7}}

    assert in_dictionary(wrapped, ANCHOR) == {"epoch": 3, "step": 7, "state_dict": STATE}


def test_entry_without_the_prefix_keeps_its_name() -> None:
    state, _ = unwrapped({f"model.{n}": v for n, v in STATE.items()} | {"loss.weight": 0}, [ANCHOR])

    assert state == STATE | {"loss.weight": 0}


def test_value_without_the_anchor_is_given_back() -> None:
    for value in ({"a": 1}, [1], None, {"state_dict": {"a": 1}}):
        assert bare(value, ANCHOR) is value
        assert in_dictionary(value, ANCHOR) is value
