"""The dialogue of `search --prompt`: a sentence, or the prompts of alro923/DRL.

The model stays loaded.

Source: docs/specs/drl.md, section 17: `t` and a sentence, `i` and the number of an evaluated
sentence, `q`. There each of them is typed on a line of its own; here one line does, too.
"""

from typing import TYPE_CHECKING

import click

from pipeline.commands import _search_output as output
from pipeline.errors import ConfigError, DataError
from pipeline.search import question
from pipeline.visible import one_line

if TYPE_CHECKING:
    from pipeline.search.collection import Evaluated
    from pipeline.search.search import Searcher

_HELP = "a sentence; t or i (then a sentence, or a number of the split); q ends"


def dialogue(searcher: "Searcher", results: "Evaluated | None") -> None:
    """Answer until q or the end of input. A query that cannot be answered says why, and goes on."""
    while (line := _typed(_HELP)) is not None:
        kind, _, rest = line.partition(" ")
        if line == "q":
            return
        try:
            if line == "t" or (kind == "t" and rest.strip()):
                _answer(searcher, rest or _typed("sentence"))
            elif line == "i" or (kind == "i" and rest.strip().isdecimal()):
                _answer_number(searcher, results, rest or _typed("number"))
            elif line:
                _answer(searcher, line)
        except (ConfigError, DataError) as error:
            click.echo(str(error))


def _typed(what: str) -> str | None:
    try:
        return click.prompt(what, prompt_suffix=": ", default="", show_default=False).strip()
    except click.Abort:  # the end of input
        return None


def _answer(searcher: "Searcher", line: str | None) -> None:
    if not line:
        return
    answers, asked = searcher.search(question.parse_line(line.strip()))
    if asked.unknown:
        click.echo(f"not known to the model: {one_line(', '.join(asked.unknown[:20]))}")
    output.lines({}, answers)


def _answer_number(searcher: "Searcher", results: "Evaluated | None", text: str | None) -> None:
    from pipeline.search import search_record

    number = (text or "").strip()
    if results is None or not number.isdecimal():
        what = "an index has no numbered sentences" if results is None else f"no number: {number}"
        raise ConfigError(what, where="i", fix="Type a sentence.")
    sentence, own = search_record.sentence(results.folder, int(number))
    answers, _ = searcher.search([question.Part("words", sentence)])
    output.lines({"query": sentence, "index": int(number), "video": own}, answers)
