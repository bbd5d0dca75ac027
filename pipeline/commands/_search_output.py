"""How `search` prints: lines for people, JSON for programs, a page with pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import log
from pipeline.visible import one_line

if TYPE_CHECKING:
    from pipeline.commands._search_request import Request
    from pipeline.search.answers import Answers, VideoAnswer
    from pipeline.search.collection import Evaluated
    from pipeline.search.search import Searcher


def show(request: "Request", details: dict, answers: "Answers", unknown: list[str]) -> None:
    """One query and its answers."""
    _warn(unknown)
    if request.as_json:
        click.echo(json.dumps(plain(request, details, answers, unknown), indent=1))
    else:
        lines(details, answers, request.template)
    if request.html:
        page(request.html, [(details, answers)])


def show_all(request: "Request", found: "list[tuple[dict, Answers, list[str]]]") -> None:
    """Several queries, each with its answers."""
    for _, _, unknown in found:
        _warn(unknown)
    if request.as_json:
        click.echo(json.dumps([plain(request, *each) for each in found], indent=1))
    else:
        for details, answers, _ in found:
            click.echo(one_line(details["query"]))
            lines({}, answers, request.template)
            click.echo()
    if request.html:
        page(request.html, [(details, answers) for details, answers, _ in found])


def lines(details: dict, answers: "Answers", template: str = "{}") -> None:
    """Answers as aligned lines; then what was searched, and which of them tie.

    template: the path of a video whose file is not known, with {} for its id.
    """
    from pipeline.search.answers import span_words, tie_words

    if "index" in details:
        click.echo(f"{one_line(details['query'])}   (of {one_line(details['video'])})")
    if not len(answers):
        click.echo("no answer")
        log.info(_searched(answers))
        return
    times = [span_words(answer) for answer in answers]
    names = [one_line(answer.video_id) for answer in answers]
    time_width = max([len("time") if any(times) else 0, *map(len, times)], default=0)
    name_width = min(max(map(len, ["video", *names])), 40)
    columns = f"{'rank':>4} {'score':>8}   "
    columns += f"{'time':<{time_width}}   " if time_width else ""
    click.echo((columns + f"{'video':<{name_width}}   path").rstrip())
    for answer, time, name in zip(answers, times, names, strict=True):
        line = f"{answer.rank:>4,} {answer.score:>8.4f}   "
        line += f"{time:<{time_width}}   " if time_width else ""
        line += f"{name:<{name_width}}   {one_line(_short(_path(answer, template)))}"
        click.echo(line.rstrip())
    for line in tie_words(answers.answers):
        log.warning(line)
    log.info(_searched(answers))


def captions(request: "Request", searcher: "Searcher", results: "Evaluated") -> None:
    """Captions for a video, and the videos that are like it."""
    from pipeline.search.question import video_part
    from pipeline.search.search import captions_of

    asker, video = searcher.asker, request.video
    hits = captions_of(
        results,
        asker.model,
        video_id=video,
        features=request.features,
        top=request.top,
        frames=asker.info.recipe.train.frames,
    )
    alike, _ = searcher.search([video_part(video)])
    if request.as_json:
        found = [{"rank": h.rank, "score": h.score, "caption": h.label} for h in hits]
        plain = {"video": video, "unknown_words": [], "results": found}
        similar = {"similar": [answer.plain() for answer in alike]}
        click.echo(json.dumps(plain | similar | _facts(alike), indent=1))
        return
    click.echo(f"{'rank':>4} {'score':>8}   caption")
    for hit in hits:
        click.echo(f"{hit.rank:>4,} {hit.score:>8.4f}   {one_line(hit.label)}")
    click.echo("\nvideos like it")
    lines({}, alike, request.template)


def record(request: "Request", details: dict, answers: "Answers") -> dict[str, object]:
    """Return the record that alro923/DRL builds of a query; answers: the whole gallery."""
    from pipeline.search.search_record import record_of

    own = details.get("video")
    ranked = [request.template.replace("{}", answer.video_id) for answer in answers]
    mine = own and request.template.replace("{}", own)
    return record_of(details["query"], mine, ranked)


def page(file: Path, found: "list[tuple[dict, Answers]]") -> None:
    """Write a contact sheet of answers."""
    from pipeline.core.files import atomic_write
    from pipeline.search.page import contact_sheet

    sheet = contact_sheet([(details.get("query", ""), answers) for details, answers in found])
    atomic_write(file, sheet)
    log.info(f"{file}: written")


def write_json(path: Path, value: dict) -> None:
    """Write records."""
    from pipeline.core.files import atomic_write

    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
    log.info(f"{path}: written")


def _warn(unknown: list[str]) -> None:
    if unknown:
        log.warning(
            "the model does not know these words and ignores them: "
            + one_line(", ".join(unknown[:20]))
        )


def plain(request: "Request", details: dict, answers: "Answers", unknown: list[str]) -> dict:
    """Return a query and its answers as plain values."""
    found: list[VideoAnswer] = list(answers)
    results = [answer.plain() for answer in found]
    for value, answer in zip(results, found, strict=True):
        if path := _path(answer, request.template):
            value["path"] = path
    return details | {"unknown_words": unknown} | _facts(answers) | {"results": results}


def _facts(answers: "Answers") -> dict:
    from pipeline.search.answers import tie_words

    searched = {"videos": answers.videos, "windows": answers.windows, "what": answers.searched}
    if answers.chosen is not None:
        searched["candidates"] = answers.chosen
    return {"searched": searched, "ties": tie_words(answers.answers)}


def _searched(answers: "Answers") -> str:
    words = f"searched {answers.searched}"
    if answers.chosen is not None:
        words += f"; the model scored the {answers.chosen:,} nearest (--exact: all)"
    return words


def _path(answer: "VideoAnswer", template: str) -> str:
    """Return where the file of an answer is, else what --paths calls it; empty if neither says
    so.
    """
    named = "" if template == "{}" else template.replace("{}", answer.video_id)
    return str(answer.path or named)


def _short(path: str) -> str:
    """Return a path as short as it can be said from here."""
    try:
        return str(Path(path).relative_to(Path.cwd())) if path else ""
    except ValueError:
        return path
