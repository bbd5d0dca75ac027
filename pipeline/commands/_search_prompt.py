"""The dialogue of `search --prompt`: a sentence, or the prompts of alro923/DRL.

The model stays loaded. Questions go to stderr, answers to stdout: with --json one object a line.

Source: docs/specs/drl.md, section 17: `t` and a sentence, `i` and the number of an evaluated
sentence, `q`. There each of them is typed on a line of its own; here one line does, too.
"""

import json
from typing import TYPE_CHECKING

import click

from pipeline.commands import _search_output as output
from pipeline.errors import ConfigError, DataError
from pipeline.search import question
from pipeline.visible import one_line

if TYPE_CHECKING:
    from pipeline.commands._search_request import Request
    from pipeline.search.collection import Evaluated
    from pipeline.search.search import Searcher

_HELP = "a sentence; t or i (then a sentence, or a number of the split); q ends"


def dialogue(request: "Request", searcher: "Searcher", results: "Evaluated | None") -> None:
    """Answer until q or the end of input. A query that cannot be answered says why, and goes on.

    With --records every answer so far is in that file, keyed by "0", "1", ...
    """
    records: dict[str, dict] = {}
    while (line := _typed(_HELP)) is not None:
        kind, _, rest = line.partition(" ")
        if line == "q":
            return
        try:
            if line == "i" or (kind == "i" and rest.strip().isdecimal()):
                asked = _numbered(results, rest or _typed("number"))
            elif line == "t" or (kind == "t" and rest.strip()):
                asked = _sentence(rest or _typed("sentence"))
            else:
                asked = _sentence(line)
            if asked:
                _answer(request, searcher, *asked, records)
        except (ConfigError, DataError) as error:
            click.echo(str(error), err=True)


def _typed(what: str) -> str | None:
    try:
        line = click.prompt(what, prompt_suffix=": ", default="", show_default=False, err=True)
    except click.Abort:  # the end of input
        return None
    return line.strip()


def _sentence(line: str | None) -> "tuple[list[question.Part], dict] | None":
    """Return what a line asks for, and what to say of it, or None for an empty one."""
    if not line or not line.strip():
        return None
    parts = question.parse_line(line.strip())
    return parts, {"query": question.described(parts)}


def _numbered(
    results: "Evaluated | None", text: str | None
) -> "tuple[list[question.Part], dict] | None":
    from pipeline.search import search_record

    number = (text or "").strip()
    if results is None or not number.isdecimal():
        what = "an index has no numbered sentences" if results is None else f"no number: {number}"
        raise ConfigError(what, where="i", fix="Type a sentence.")
    sentence, own = search_record.sentence(results.folder, int(number))
    details = {"query": sentence, "index": int(number), "video": own}
    return [question.Part("words", sentence)], details


def _answer(
    request: "Request", searcher: "Searcher", parts: list, details: dict, records: dict
) -> None:
    answers, asked = searcher.search(parts)
    if request.records:
        records[str(len(records))] = output.record(request, details, answers)
        output.write_json(request.records, records)
    shown = answers.first(request.top)
    if request.as_json:
        plain = output.plain(request, details, shown, asked.unknown)
        click.echo(json.dumps(plain, ensure_ascii=False))
        return
    if asked.unknown:
        click.echo(
            f"the model does not know these words: {one_line(', '.join(asked.unknown[:20]))}"
        )
    output.lines(details if "index" in details else {}, shown, request.template)
