"""Annotation files: what does no harm, and what is refused with the line and the way out."""

from pathlib import Path

import pytest

from pipeline.datasets.base import Faults
from pipeline.datasets.parts import annotation_files as files
from pipeline.errors import DataError
from tests.datasets.layouts import write


def test_marks_carriage_returns_blank_lines_and_a_missing_newline_do_no_harm(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "ids.txt", b"\xef\xbb\xbf-4wsuPCjDBc\r\n\r\n  --0edUL8zmA \n\nv_x")

    assert files.read_ids(path, Faults(path)) == ["-4wsuPCjDBc", "--0edUL8zmA", "v_x"]


def test_ids_may_be_a_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "ids.json", ["v_a", "v_b"])

    assert files.read_ids(path, Faults(path)) == ["v_a", "v_b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\na\n", r"1 x id that stands in a list twice: 'a' \(ids.txt:3\)"),
        ("../x\n", r"'../x' \(ids.txt:1\)"),
        ("a/b\n..\n", r"'a/b' \(ids.txt:1\); '..' \(ids.txt:2\)"),
        ("a\tb\n", r"'a\\tb' \(ids.txt:1\)"),
        ("\n\n", "1 x list without an id: ids.txt"),
    ],
)
def test_every_fault_of_a_list_is_reported_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = write(tmp_path / "ids.txt", content)
    faults = Faults(path)

    files.read_ids(path, faults)

    with pytest.raises(DataError, match=message):
        faults.raise_if_any()


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (b"a\nb caf\xe9\n", "0xe9 in line 2\n.*WINDOWS-1252"),
    ],
)
def test_another_encoding_is_named_with_its_line_and_the_command_that_converts_it(
    tmp_path: Path, content: bytes, guess: str
) -> None:
    with pytest.raises(DataError, match=f"not UTF-8: byte {guess} -t UTF-8"):
        files.read_text(write(tmp_path / "ids.txt", content))


def test_table_keeps_quoted_commas_and_line_breaks(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", b'\xef\xbb\xbfvideo_id,sentence\r\nv1,"a, b\r\nc"\r\n\r\nv2, d \r\n'
    )

    columns, rows = files.read_table(path, Faults(path))

    assert columns == ["video_id", "sentence"]
    assert [row for _, row in rows] == [
        {"video_id": "v1", "sentence": "a, b\r\nc"},
        {"video_id": "v2", "sentence": "d"},
    ]


def test_row_with_a_comma_too_many_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "video_id,sentence\nv1,a man, running\n")
    faults = Faults(path)

    files.read_table(path, faults)

    with pytest.raises(
        DataError, match=r"1 x row without 2 values \(text with ',' needs quotes\): 3 \(t.csv:2\)"
    ):
        faults.raise_if_any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"x.json:1:2: not JSON"),
        ('{"a": 1, "a": 2, "b": 3}', "1 x key that occurs twice: 'a'"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "not JSON"),
        ("9" * 10_000, "not JSON"),
    ],
)
def test_broken_json_is_explained(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        files.read_json(write(tmp_path / "x.json", content))


def test_json_of_another_data_set_is_called_by_its_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "MSRVTT_data.json",
        {"v_x": {"timestamps": [], "sentences": ["a"], "duration": 1}},
    )

    with pytest.raises(
        DataError,
        match="holds captions of ActivityNet, not captions of MSR-VTT .*\n.*another data set",
    ):
        files.read_json(path, "captions of MSR-VTT (sentences)")


@pytest.mark.parametrize("value", [None, 3, ["a"], "half \ud83d"])
def test_caption_that_is_no_text_is_a_fault(value: object) -> None:
    faults = Faults("x")

    assert files.caption_text(value, "x:1", faults) == ""
    assert faults


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.txt: cannot be read: No such file"):
        files.read_text(tmp_path / "gone.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_read_by_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    (tmp_path / "list.txt").write_bytes(mark + "a\ncaf\u00e9".encode(encoding))

    assert files.read_text(tmp_path / "list.txt") == "a\ncaf\u00e9"


def test_a_table_that_excel_saved_with_semicolons_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('video_id;sentence\nvideo1;"a man, running"\n')

    columns, rows = files.read_table(tmp_path / "list.csv", Faults("here"))

    assert columns == ["video_id", "sentence"]
    assert rows == [("list.csv:2", {"video_id": "video1", "sentence": "a man, running"})]


def test_quotes_between_tabs_are_text(tmp_path: Path) -> None:
    lines = ["video\tcaption", 'a\t"Stop!" he shouts', 'b\ta 15" screen', 'c\t"half']
    (tmp_path / "list.tsv").write_text("\n".join(lines))

    _, rows = files.read_table(tmp_path / "list.tsv", Faults("here"), "\t")

    assert [row["caption"] for _, row in rows] == ['"Stop!" he shouts', 'a 15" screen', '"half']
