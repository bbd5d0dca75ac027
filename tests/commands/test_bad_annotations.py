"""Annotation files that are wrong, for every reader, from the command line: exit code 4, what,
where and what to do.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from tests.conftest import ROOT
from tests.datasets.layouts import ALL, CLIPS, LSMDC, write

TEXTS = {  # a file of each reader that names videos, and a further entry of it for the video {0}
    "msvd": ("train_list.txt", "\n{0}\n"),
    "msrvtt": ("MSRVTT_train.9k.csv", "{0}\n"),
    "lsmdc": ("LSMDC16_annos_training.csv", "\n" + LSMDC.format("{0}", "A dog.")),
    "didemo": ("train_list.txt", "\n{0}\n"),
    "vatex": ("train_list.txt", "{0}\n"),
    "caption_files": ("TextData/xtrain.caption.txt", "{0}#0 a film\n"),
    "folder": ("captions.csv", "{0},a film,train\n"),
}
CAPTIONS = {  # the JSON that only one data set has
    "msrvtt": "MSRVTT_data.json", "activitynet": "train.json", "didemo": "train_data.json",
    "vatex": "ref_captions.json",
}  # fmt: skip


def read(
    kind: str, root: Path, capsys: pytest.CaptureFixture, **options: object
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `describe` for a data set of this kind."""
    spec = {"type": kind, "root": str(root), **options}
    own = write(root.parent / f"{root.name}.yaml", {"datasets": {"own": spec}})
    code = cli.main(
        ["describe", "own", "--config", str(own), "--out", str(root.parent / "out"), "--json"]
    )
    said = capsys.readouterr()
    return code, said.out, said.err


def expect_refusal(found: tuple[int, str, str], where: Path, *words: str) -> None:
    code, _, err = found
    head, _, fix = err.strip().rpartition("\n    ")
    assert code == 4
    assert head.startswith(str(where))
    assert fix
    assert all(word in err for word in words), err


def appended(kind: str, root: Path, video_id: str) -> Path:
    """The data set of a kind with one more entry, for `video_id`."""
    name, line = TEXTS[kind]
    path = ALL[kind](root) / name
    path.write_bytes(path.read_bytes().rstrip(b"\n") * (line[0] == "\n") or path.read_bytes())
    with path.open("a", encoding="utf-8") as file:
        file.write(line.format(video_id))
    return path


@pytest.mark.parametrize("kind", TEXTS)
def test_bytes_that_are_not_utf_8(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = appended(kind, tmp_path / "set", "x")
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")

    expect_refusal(read(kind, tmp_path / "set", capsys), tmp_path, "not UTF-8", "0xe9", path.name)


@pytest.mark.parametrize("kind", ALL)
def test_byte_order_marks_and_carriage_returns_change_nothing(
    kind: str, tmp_path: Path, capsys
) -> None:
    plain = read(kind, ALL[kind](tmp_path / "plain"), capsys)
    for path in ALL[kind](tmp_path / "marked").rglob("*.*"):
        if path.suffix in (".txt", ".csv", ".json"):
            lines = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            path.write_bytes(b"\xef\xbb\xbf" + lines + b"\r\n\r\n" * (path.suffix == ".txt"))

    marked = read(kind, tmp_path / "marked", capsys)

    assert plain[0] == marked[0] == 0
    assert json.loads(plain[1]) == json.loads(marked[1])


@pytest.mark.parametrize(
    "video_id", ["../../x", "/etc/passwd", "a/b", "..", "a\\b", "a;b", "\x1b[31m"]
)
@pytest.mark.parametrize("kind", TEXTS)
def test_ids_that_could_be_paths_or_do_harm(
    kind: str, video_id: str, tmp_path: Path, capsys
) -> None:
    appended(kind, tmp_path / "set", video_id)

    found = read(kind, tmp_path / "set", capsys)

    if kind == "folder" and found[0] == 0:  # a name of a file that is not there: counted, unread
        assert "have no file" in found[2]
    else:
        expect_refusal(found, tmp_path)
    assert "\x1b" not in found[2]


@pytest.mark.parametrize(
    "kind", sorted(TEXTS.keys() - {"lsmdc", "folder"})
)  # there a video may stand twice
def test_ids_that_stand_there_twice(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = appended(kind, tmp_path / "set", "twice")
    path.write_text(path.read_text() + TEXTS[kind][1].format("twice"))

    expect_refusal(read(kind, tmp_path / "set", capsys), tmp_path, "twice", path.name)


@pytest.mark.parametrize("kind", ["msvd", "msrvtt", "vatex"])
def test_a_split_that_names_unknown_ids(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = appended(kind, tmp_path / "set", "unknown")

    expect_refusal(
        read(kind, tmp_path / "set", capsys), tmp_path, "no captions: 'unknown'", path.name
    )


@pytest.mark.parametrize(("kind", "other"), [(a, b) for a in CAPTIONS for b in CAPTIONS if a != b])
def test_the_file_of_another_data_set(
    kind: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wrong = (ALL[other](tmp_path / "other") / CAPTIONS[other]).read_bytes()
    write(ALL[kind](tmp_path / "set") / CAPTIONS[kind], wrong)

    expect_refusal(
        read(kind, tmp_path / "set", capsys), tmp_path, "another data set", CAPTIONS[kind]
    )


def test_captions_of_another_data_set_in_the_same_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wrong = (ALL["vatex"](tmp_path / "other") / "ref_captions.json").read_bytes()
    write(ALL["msvd"](tmp_path / "set") / "raw-captions.json", wrong)
    write(tmp_path / "set/test_list.txt", "\n".join(CLIPS))

    expect_refusal(
        read("msvd", tmp_path / "set", capsys), tmp_path, "is one of the files of another data set?"
    )


@pytest.mark.parametrize(("kind", "name", "line"), [
    ("lsmdc", "LSMDC16_annos_training.csv", "\n" + LSMDC.format("1_A", "a\tdog")),
    ("caption_files", "TextData/xtrain.caption.txt", "x#0\ta film\n"),
    ("folder", "captions.csv", "a.mp4,a film,train,\n"),
])  # fmt: skip
def test_tabs_and_separators_where_none_belong(
    kind: str, name: str, line: str, tmp_path: Path, capsys
) -> None:
    path = ALL[kind](tmp_path / "set") / name
    path.write_text(path.read_text() + line)

    expect_refusal(read(kind, tmp_path / "set", capsys), tmp_path, Path(name).name)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pwned",)


# puts one list into slot 2147483647 of the memo: 16 GB in the C unpickler
BOMB = b"\x80\x02]r\xff\xff\xff\x7f."


@pytest.mark.parametrize(("data", "words"), [
    (pickle.dumps({"a": [[Hostile()]]}), "asks for posix.system"),
    (b"cos\nsystem\n(S'touch pwned'\ntR.", "asks for os.system"),
    (BOMB, "asks for room for 2,147,483,647 objects"),
])  # fmt: skip
def test_pickles_that_run_something_or_fill_the_memory(
    data: bytes, words: str, tmp_path: Path
) -> None:
    write(ALL["msvd"](tmp_path / "set") / "raw-captions.pkl", data)
    own = write(
        tmp_path / "own.yaml",
        {"datasets": {"own": {"type": "msvd", "root": str(tmp_path / "set")}}},
    )
    limited = (
        "import resource, sys, cli; resource.setrlimit(resource.RLIMIT_AS, (2 << 30,) * 2);"
        " sys.exit(cli.main())"
    )

    for command in (
        ["describe", "own", "--config", own],
        ["convert-captions", tmp_path / "set/raw-captions.pkl"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", limited, *map(str, command)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        expect_refusal(
            (result.returncode, result.stdout, result.stderr), tmp_path, words, "raw-captions.pkl"
        )

    assert not list(tmp_path.rglob("pwned"))
