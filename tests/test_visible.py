"""What foreign text looks like on a terminal: nothing of it is an instruction."""

import fcntl
import io
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.visible import Stream, fitted, one_line, visible
from tests.conftest import ROOT

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31md\u202ee\u2066f\udce9"


def test_escapes_and_bidirectional_marks_are_shown_not_sent() -> None:
    shown = visible(HOSTILE)

    assert shown == "a\\x1b[2J\\x1b]0;title\\x07b\\x0dc\\x9b31md\\u202ee\\u2066f\\xe9"
    assert shown.encode("utf-8")


def test_words_of_every_language_stay_as_they_are() -> None:
    assert visible("müde 猫 नमस्ते عربي 👍🏽\n\t") == "müde 猫 नमस्ते عربي 👍🏽\n\t"


def test_a_name_with_a_line_break_stays_on_its_line() -> None:
    assert one_line("a\nERROR: forged\t") == "a\\nERROR: forged\\t"
    assert str(DataError("broken", where="x\ny", fix="Mend it.")) == "x\\ny: broken\n    Mend it."


def test_a_stream_writes_visible_text_and_is_otherwise_the_stream_behind_it() -> None:
    behind = io.StringIO()
    stream = Stream(behind)

    print(HOSTILE, file=stream)

    assert "\x1b" not in behind.getvalue()
    assert stream.getvalue() == behind.getvalue()
    assert not stream.isatty()


@pytest.mark.parametrize("argument", ["\x1b[31mx", "list-\u202e", "no\nsuch"])
def test_the_command_line_never_prints_an_argument_raw(argument: str) -> None:
    result = subprocess.run(
        [sys.executable, "cli.py", argument], cwd=ROOT, capture_output=True, text=True
    )

    assert result.returncode == 2
    assert not {"\x1b", "\u202e"} & set(result.stdout + result.stderr)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_lines_fit_a_terminal_and_no_word_or_number_is_broken(columns: int) -> None:
    line = "train   epoch 12/30  loss 1.832  t2v R@1 34.4  best 36.7 (epoch 9)  212 videos/s"

    shown = fitted(f"{line}\n{'x' * 100} end\n", columns)

    assert max(len(part) for part in shown.split("\n") if "x" not in part) <= columns
    assert shown.split() == [*line.split(), "x" * 100, "end"]
    assert fitted(line, 0) == line
    command = "    Run: python cli.py run demo --set " + "x" * 80
    assert fitted(command, columns) == command


def test_only_a_terminal_gets_broken_lines(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    words = "word " * 30

    with os.fdopen(follower, "w") as terminal:
        Stream(terminal).write(words + "\n")
        terminal.flush()
        shown = os.read(leader, 4096).decode()
    with (tmp_path / "file").open("w+") as file:
        Stream(file).write(words)

    assert max(map(len, shown.splitlines())) <= 40
    assert (tmp_path / "file").read_text() == words
    os.close(leader)
