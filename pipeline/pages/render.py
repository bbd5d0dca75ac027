"""Every page that the toolkit makes, from one set of templates: the report, the answers of a
search, the facts of a data set, and the search page of `serve`.

Everything that is put into a template is escaped there, unless a template says `safe`: of our own
style sheets and drawings only. jinja2 comes with torch.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent
STATIC = _HERE / "static"  # what `serve` hands out as files


def render(template: str, **values: object) -> str:
    """Return a page. template: a name below `templates` without `.html.jinja`."""
    return _environment().get_template(f"{template}.html.jinja").render(values)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_encodable,
    )
    found.filters |= {"one": one, "size": size, "heading": heading}
    found.globals["style"] = _style
    return found


def _encodable(value: object) -> object:
    """Return a value as it can be encoded: file names may hold any bytes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _style(name: str) -> Markup:
    """Return one of our own style sheets, for a page that needs nothing beside it."""
    return Markup((STATIC / f"{name}.css").read_text(encoding="utf-8"))  # noqa: S704


def heading(key: str) -> str:
    """R5 -> R@5."""
    return f"R@{key[1:]}" if key[1:].isdigit() else key


def one(value: float | None) -> str:
    """Return one decimal, or nothing."""
    return "" if value is None else f"{value:.1f}"


def size(count: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
