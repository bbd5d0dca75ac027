"""Foreign text made safe to print: names of files, ids and captions never reach a terminal raw.

A file name may hold escape sequences, line breaks, bidirectional marks, or bytes that are no text.
`cli.py` sends everything that it prints through `Stream`; a name that must stay on its line goes
through `one_line` where the line is put together.
"""

import os
from collections.abc import Iterator
from typing import TextIO

CHECKOUT = "python cli.py"
_INDENT = 4  # of what a long line goes on with
_KEPT = "\n\t"
_C0_AND_C1 = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT]
_BIDIRECTIONAL = [chr(code) for code in (0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F))]
_ISOLATES = [chr(code) for code in range(0x2066, 0x206A)]
_SEPARATORS = ["\u2028", "\u2029", "\ufeff"]


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_TABLE = {
    ord(character): _escape(character)
    for character in (*_C0_AND_C1, *_BIDIRECTIONAL, *_ISOLATES, *_SEPARATORS)
}
# what Python makes of bytes in file names that are no UTF-8
_TABLE |= {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}
_TABLE |= {code: f"\\u{code:04x}" for code in (*range(0xD800, 0xDC80), *range(0xDD00, 0xE000))}
_ONE_LINE = _TABLE | {ord("\n"): "\\n", ord("\t"): "\\t"}


def visible(text: str) -> str:
    """`text` with control characters, bidirectional marks and lone surrogates as escapes.

    Line feeds and tabs stay.
    """
    return text.translate(_TABLE)


def one_line(text: object) -> str:
    """`text` as `visible` shows it, line feeds and tabs as escapes too: for names within a line."""
    return str(text).translate(_ONE_LINE)


def fitted(text: str, columns: int, program: str = CHECKOUT) -> str:
    """`text` with lines of at most `columns` characters, broken at blanks, never within a word or a
    number; 0: as it is. What follows is indented by four more than the line began. A line that
    names a command of `program` stays whole, to be copied.
    """
    if not columns or all(len(line) <= columns for line in text.split("\n")):
        return text
    lines = text.split("\n")
    return "\n".join(
        part
        for line in lines
        for part in ([line] if f"{program} " in line else _parts(line, columns))
    )


def _parts(line: str, columns: int) -> Iterator[str]:
    indent = " " * min(_INDENT + len(line) - len(line.lstrip()), columns // 2)
    while len(line) > columns:
        start = len(line) - len(line.lstrip())
        place = line.rfind("  ", start + 1, columns + 1)  # between columns, if it is not too early
        if place < columns // 3:
            place = line.rfind(" ", start + 1, columns + 1)
        if place < 0:  # one long word: a path, an address
            place = line.find(" ", columns)
        if place < 0 or not line[place:].strip():
            break
        yield line[:place].rstrip()
        line = indent + line[place:].lstrip()
    yield line


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal; 0 for a file or a pipe."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError, AttributeError):
        return 0


def unfiltered(stream: TextIO) -> TextIO:
    """Return the stream behind a `Stream`, for a progress bar, whose escape sequences are its
    own.
    """
    return stream.unfiltered if isinstance(stream, Stream) else stream


class Stream:
    """A text stream that writes `visible` text; everything else is the stream's own.

    program: how the user calls us. Texts name commands as a checkout types them.
    """

    def __init__(self, stream: TextIO, program: str = CHECKOUT):
        self.unfiltered = stream
        self._program = program

    def write(self, text: str) -> int:
        shown = visible(text.replace(CHECKOUT, self._program))
        return self.unfiltered.write(fitted(shown, _columns(self.unfiltered), self._program))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.unfiltered, name)
