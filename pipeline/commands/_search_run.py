"""What `search` does: opens an index or a checkpoint, answers, prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import log
from pipeline.commands import _search_output as output
from pipeline.commands._search_request import Request
from pipeline.errors import ConfigError, DataError
from pipeline.search import question

if TYPE_CHECKING:
    from pipeline.search.collection import Evaluated
    from pipeline.search.question import Part
    from pipeline.search.search import Searcher


def run(request: Request) -> None:
    """Answer a request. Raises TvrError for what cannot be searched or asked."""
    parts = request.parts()  # mistakes are said before a model is loaded
    lines = _lines(request.queries) if request.queries else []
    searcher = _open(request)
    results = getattr(searcher.collection, "gallery", None) and searcher.collection
    if not results and (request.index is not None or request.records):
        raise ConfigError(
            "an index has no split, so it has no sentences of one",
            where="--index" if request.index is not None else "--records",
            fix="Search a CHECKPOINT that was evaluated.",
        )
    if request.prompt:
        from pipeline.commands._search_prompt import dialogue

        dialogue(request, searcher, results)
    elif lines:
        _answer_all(request, searcher, lines)
    elif results and _is_about_captions(request):
        output.captions(request, searcher, results)
    elif request.index is not None or request.records:
        _answer_with_record(request, searcher, results, parts)
    else:
        answers, asked = searcher.search(parts)
        output.show(request, {"query": question.described(parts)}, answers, asked.unknown)


def _open(request: Request) -> "Searcher":
    from pipeline.search import search
    from pipeline.stores.index.reader import IndexStore, is_index

    top = None if request.records else request.top
    how = (top, request.per_video, request.min_score, request.paths, request.exact)
    is_ours = is_index(request.target)
    _expect_fit(request, is_ours)
    if is_ours:
        from pipeline.search.opening import open_index

        store = IndexStore.open(request.target, request.root)
        model, info = open_index(request.target, store, request.checkpoint)
        return search.Searcher(search.of_index(model, info, store, request.features), *how)
    from pipeline.checkpoints.model_file import load_model
    from pipeline.evaluation.locate import find_results
    from pipeline.evaluation.results import changes_of

    path = _found(request.target)
    folder = find_results(path, request.videos)
    model, info = load_model(path, changes_of(folder))
    return search.Searcher(search.of_results(model, info, folder, request.features), *how)


def _expect_fit(request: Request, is_index: bool) -> None:
    """ConfigError for options that mean nothing for what is searched."""
    of_other = ("videos",) if is_index else ("root", "checkpoint")
    given = [f"--{name}" for name in of_other if getattr(request, name) is not None]
    if given:
        kind, other = ("an index", "a CHECKPOINT") if is_index else ("a checkpoint", "an INDEX")
        raise ConfigError(
            f"{', '.join(given)} goes with {other}, and this is {kind}",
            where=request.target,
            fix="Leave it out.",
        )


def _found(target: Path) -> Path:
    """Return the file of a checkpoint. DataError: it is neither that nor an index."""
    from pipeline.checkpoints.toolkit_file import find_checkpoint

    try:
        return find_checkpoint(target)
    except DataError as error:
        raise DataError(
            "there is neither an index nor a checkpoint here",
            where=target,
            fix=(
                f"{error.fix} Or make an index: python cli.py index --in FOLDER --checkpoint CKPT"
                " --out INDEX."
            ),
        ) from error


def _is_about_captions(request: Request) -> bool:
    """Return a video alone, asked of results: these have captions to rank."""
    return request.video is not None and not request.query


def _answer_with_record(
    request: Request, searcher: "Searcher", results: "Evaluated", parts: "list[Part]"
) -> None:
    """One sentence, or each of the split, with the record that alro923/DRL writes of it."""
    from pipeline.search import search_record

    folder, template = results.folder, request.template
    if not parts and request.index is None:
        found = search_record.all_records(searcher.asker.model, folder, template)
        output.write_json(request.records, found)
        return
    details = {}
    if request.index is not None:
        sentence, own = search_record.sentence(folder, request.index)
        parts, details = [question.Part("words", sentence)], {"index": request.index, "video": own}
    answers, asked = searcher.search(parts)
    details = {"query": question.described(parts)} | details
    if request.records:
        output.write_json(request.records, output.record(request, details, answers))
    output.show(request, details, answers.first(request.top), asked.unknown)


def _answer_all(request: Request, searcher: "Searcher", lines: list[str]) -> None:
    """Many queries; one that cannot be answered is named, and the others go on."""
    found, failed = [], 0
    for line in lines:
        try:
            parts = question.parse_line(line)
            answers, asked = searcher.search(parts)
        except (ConfigError, DataError) as error:
            failed += 1
            log.warning(str(error))
            continue
        found.append(({"query": question.described(parts)}, answers, asked.unknown))
    output.show_all(request, found)
    if failed == len(lines):
        raise ConfigError(
            f"none of {len(lines):,} queries could be answered",
            where=request.queries,
            fix="See the lines above.",
        )


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}",
            where=file,
            fix="Give a text file, a query per line.",
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError("holds no query", where=file, fix="Write a query per line.")
    return lines
