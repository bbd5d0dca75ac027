"""The literal parser of video2frames.txt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stores.big_file.frame_lists import group_frames, parse_frame_lists


@pytest.mark.parametrize(
    "text",
    [
        "{'a': ['a_0', 'a_1']}",
        "{u'a': [u'a_0', u'a_1']}",
        '{"a":["a_0","a_1",],}\n',
        r"{'\x61': ['a\x5f0', 'a_1']}",
    ],
)
def test_every_spelling_of_a_python_dictionary_is_read(text):
    assert parse_frame_lists(text) == {"a": ["a_0", "a_1"]}


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), st.lists(st.text(max_size=6), max_size=4), max_size=5))
def test_reads_what_str_and_ascii_of_a_dictionary_write(videos):
    assert parse_frame_lists(str(videos)) == videos
    assert parse_frame_lists(ascii(videos)) == videos


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'a': 'b'}", "{'a': [['b']]}", "{'a': {'b': []}}", "{'a': [1]}", "{'a': [f'{1}']}", "{'a': ['b'] * 9}",
     "{'a': ['b' 'c']}", "{'a': []} {}", "{'a': [], 'a': []}", "{'a': open('x')}", r"{'a': ['\x']}", "{'a': [b'b']}"],
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(text):
    with pytest.raises(ValueError, match="at character"):
        parse_frame_lists(text)


def test_frames_are_grouped_at_the_last_underscore_and_sorted_by_number():
    assert group_frames(["a_b_12", "c_0", "a_b_7", "a_b_007"]) == {
        "a_b": ["a_b_007", "a_b_7", "a_b_12"],
        "c": ["c_0"],
    }


def test_ids_that_are_not_frames_have_no_groups():
    assert group_frames(["word", "a_0"]) is None
