"""Lists of addresses: what is read, what is passed over, what is refused."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.fetching.links import Link, read_links

SHA = "ab" * 32
MD5 = "CD" * 16


def listed(folder: Path, text: str | bytes) -> list[Path]:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [path]


def test_addresses_are_sorted_and_counted_once(tmp_path: Path):
    text = (
        "# films\nhttps://h/b/two.avi\r\nnothing here\nhttps://h/a/one.AVI\n\nhttps://h/b/two.avi\n"
    )

    found = read_links(listed(tmp_path, "\ufeff" + text))

    assert found.links == [
        Link("one", "https://h/a/one.AVI", ".avi"),
        Link("two", "https://h/b/two.avi", ".avi"),
    ]


def test_lines_without_an_address_are_counted(tmp_path: Path):
    assert read_links(listed(tmp_path, "one\ntwo words\nhttps://h/one.mp4\n")).ignored == 2


def test_checksums_are_read(tmp_path: Path):
    found = read_links(listed(tmp_path, f"https://h/1.mp4 {SHA}\nmd5:{MD5}  https://h/2.mp4\n"))

    assert [link.checksum for link in found.links] == [SHA, MD5.lower()]


def test_clip_ids_keep_their_dots_and_folders_are_optional(tmp_path: Path):
    paths = listed(
        tmp_path, "http://h/clips/0017_Pianist/0017_Pianist_00.23.28.872-00.23.34.843.avi\n"
    )

    flat, deep = read_links(paths).links[0], read_links(paths, in_folders=True).links[0]

    assert flat.id == "0017_Pianist_00.23.28.872-00.23.34.843"
    assert deep.id == f"0017_Pianist/{flat.id}"


def test_several_lists_are_one(tmp_path: Path):
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text("http://h/b.mp4\n")
    second.write_text("http://h/a.mp4\nhttp://h/b.mp4\n")

    assert [link.id for link in read_links([first, second]).links] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("file:///etc/passwd.mp4", "not http or https"),
        ("ftp://h/a.mp4", "not http or https"),
        ("http:///a.mp4", "not http or https"),
        ("http://h:99999/a.mp4", "cannot be read"),
        ("http://[/a.mp4", "cannot be read"),
        ("http://http://me:secret@h/a.mp4", "user name in it"),
        ("<a href=http://h/a.mp4>", "by itself"),
        ("http://h/..%2f..%2fetc%2fpasswd.mp4/%2e%2e.mp4", "characters outside"),
        ("http://h/..mp4", "characters outside"),
        ("http://h/a%2f..%2fb.mp4%00.mp4", "characters outside"),
        ("http://h/a%20b.mp4", "characters outside"),
        ("http://h/list.php?file=a", "name of a video file"),
        ("http://h/", "name of a video file"),
        ("http://h/a.mp4\x07", "percent-encoded"),
        ("http://hé/a.mp4", "percent-encoded"),
    ],
)
def test_addresses_that_cannot_be_used_are_named(line: str, fault: str, tmp_path: Path):
    with pytest.raises(DataError, match=fault) as caught:
        read_links(listed(tmp_path, f"http://h/good.mp4\n{line}\n"))

    assert "list.txt:2" in str(caught.value)
    assert "nothing was downloaded" in caught.value.fix


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path):
    with pytest.raises(DataError, match="user name in it") as caught:
        read_links(listed(tmp_path, "http://someone:secret@h/a.mp4\n"))

    assert "secret" not in str(caught.value)


def test_two_addresses_for_one_file_name_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="another one has"):
        read_links(listed(tmp_path, "http://h/x/a.mp4\nhttp://h/y/a.avi\n"))


def test_faults_are_counted_together(tmp_path: Path):
    with pytest.raises(DataError, match="5 x address that is not http"):
        read_links(listed(tmp_path, "".join(f"ftp://h/{n}.mp4\n" for n in range(5))))


@pytest.mark.parametrize("text", [b"", b"nothing\n", b"\xff\xfeh\x00"])
def test_a_list_without_addresses_is_refused(text: bytes, tmp_path: Path):
    with pytest.raises(DataError, match="without an address|not UTF-8"):
        read_links(listed(tmp_path, text))


def test_a_list_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_links([tmp_path / "none.txt"])

    assert "none.txt" in caught.value.where
    assert "--links" in caught.value.fix


@pytest.mark.parametrize("line", [
    "http://me:secret?@h/a.mp4", "http:////me:secret@h/a.mp4", "htp[://me:secret@h/a.mp4", "http://me:secret]/a.mp4",
    "http://http://me:secret@h/a.mp4", "ftp://me:secret@h/a.mp4", "x http: //me:secret@h/a.mp4 ://",
])  # fmt: skip
def test_a_password_in_an_address_is_never_repeated(line: str, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        read_links(listed(tmp_path, line))

    assert "secret" not in str(caught.value)
    assert ":1" in str(caught.value)
