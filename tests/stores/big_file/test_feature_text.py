"""Features from text, as the published extractors write them."""

import pytest

from pipeline.errors import DataError
from pipeline.stores.big_file.feature_text import import_text
from pipeline.stores.big_file.reader import BigFile
from tests.trees import tree


def test_recorded_text_becomes_the_recorded_folder_in_every_byte(golden, tmp_path):
    case = golden / "dual-encoding" / "bigfile"

    import_text(case / "id.feature.txt", tmp_path)

    assert tree(tmp_path) == tree(case / "from_text")


def test_rows_left_out_are_named(golden, tmp_path):
    report = import_text(golden / "dual-encoding" / "bigfile" / "id.feature.txt", tmp_path)

    assert (report.rows, report.dim) == (10, 5)
    assert report.repeated == ["clip_one_b_37"]
    assert report.not_finite == ["broken_0"]


def test_ids_that_are_no_frames_give_no_frame_lists(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"caf\xe9 1 2\n\nthe 3 4\n")

    import_text(tmp_path / "words.txt", tmp_path / "out")

    assert BigFile.open(tmp_path / "out").ids == ["caf\xe9", "the"]
    assert not BigFile.open(tmp_path / "out").has_frames


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a 1 2\nb 1\n", ":2: 1 values, the first row has 2"),
        ("a 1 x\n", ":1: could not convert"),
        ("\n", "no row"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, says):
    (tmp_path / "f.txt").write_text(text)

    with pytest.raises(DataError, match=says):
        import_text(tmp_path / "f.txt", tmp_path / "out")
