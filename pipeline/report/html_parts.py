"""Pieces that the pages are built of: documents, tables, bars, numbers. Everything foreign is
escaped here.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources


def document(title: str, body: str, style: str = "") -> str:
    """Return a complete HTML document in the style of the report."""
    css = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8") + style
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body><main>\n{body}\n</main></body>\n</html>\n"
    )


def text(value: object) -> str:
    """Escaped; what cannot be encoded (file names may hold any bytes) is shown as its code."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode())


def cell(content: str, *marks: str, tag: str = "td", more: str = "") -> str:
    """Return one table cell; `marks` are classes (empty ones are dropped), `content` is HTML."""
    classes = " ".join(mark for mark in marks if mark)
    return (
        f"<{tag}{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}{more}>{content}</{tag}>"
    )


def row(cells: Iterable[str], mark: str = "") -> str:
    return f"<tr{f' class={mark}' if mark else ''}>{''.join(cells)}</tr>"


def table(heads: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table that scrolls sideways when it must. heads, rows: whole <tr> elements."""
    return (
        f'<div class="wide"><table><thead>{"".join(heads)}</thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def bar(label: str, percent: float, mark: float | None = None, shown: str = "") -> str:
    """Return a row of a table of bars; `mark`: where the tick goes (percent)."""
    tick = "" if mark is None else f'<s style="left:calc({mark:.2f}% - 1px)"></s>'
    track = f'<i><u style="width:{percent:.2f}%"></u>{tick}</i>'
    return row([cell(text(label), "name"), cell(track, "track"), cell(shown or f"{percent:.1f}")])


def figure(caption: str, bars: Iterable[str]) -> str:
    """Return a captioned table of bars."""
    body = "".join(bars)
    return (
        f"<figure><figcaption>{text(caption)}</figcaption><table"
        f' class="bars">{body}</table></figure>'
    )


def note(words: str) -> str:
    """Return a small grey paragraph; `words` is HTML."""
    return f'<p class="note">{words}</p>'


def details(title: str, body: str, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{text(title)}</summary>{body}</details>"


def heading(key: str) -> str:
    """R5 -> R@5."""
    return f"R@{key[1:]}" if key[1:].isdigit() else key


def one(value: float | None) -> str:
    """Return one decimal, or nothing."""
    return "" if value is None else f"{value:.1f}"


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
