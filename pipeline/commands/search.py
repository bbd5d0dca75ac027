"""Rank videos for a query, or captions for a video.

    python cli.py search data/work/demo/train@dual "a red circle moves left" --top 5

--records writes the answers as alro923/DRL does: {"text", "video", "video_path_list"}. Without a
query it writes one record for every sentence that was evaluated.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.evaluation.locate import find_results

if TYPE_CHECKING:
    from pipeline.search.search import Hit


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option(
    "--index",
    type=click.IntRange(0),
    metavar="N",
    help="sentence N of the evaluated split, instead of a query",
)
@click.option(
    "--video",
    metavar="ID",
    help="video (an id or a file) to rank captions for, instead of a query",
)
@click.option("--prompt", is_flag=True, help="ask for one query after another")
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="features of videos that were not evaluated, with --video",
)
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="results with the encodings  [those beside the checkpoint]",
)
@click.option(
    "--top", type=click.IntRange(1), metavar="INTEGER", default=10, help=("number of answers  [10]")
)
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="file to write all answers to (.json)",
)
@click.option(
    "--paths",
    default="{}",
    help="how records name a video; {} stands for its id, e.g. videos/{}.mp4  [{}]",
)
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(
    checkpoint: Path,
    query: str | None,
    index: int | None,
    video: str | None,
    prompt: bool,
    features: Path | None,
    videos: Path | None,
    top: int,
    records: Path | None,
    paths: str,
    as_json: bool,
) -> None:
    asked = (query is not None) + (index is not None) + (video is not None) + prompt
    if asked > 1 or not (asked or records) or (records and (video is not None or prompt)):
        raise ConfigError(
            (
                "exactly one of a query, --index, --video and --prompt is needed; --records goes"
                " with the first two, or alone"
            ),
            where="search",
            fix='For example: search BEST.pt "a dog runs"',
        )
    from pipeline.checkpoints.model_file import load_model
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.evaluation import results
    from pipeline.search import search, search_record

    path = find_checkpoint(checkpoint)
    folder = find_results(path, videos)
    model, info = load_model(path)
    log.info(results.searched(folder))
    if not asked:
        _write(records, search_record.all_records(model, folder, paths))
        return
    if prompt:
        _prompt(lambda text: search.search_text(model, info, folder, text, top), folder)
        return
    if video is not None:
        hits = search.search_video(model, folder, video, features, top, info.recipe.train.frames)
        _show({"video": video}, [], "caption", hits, as_json)
        return
    own = None
    if index is not None:
        query, own = search_record.sentence(folder, index)
    if not query.strip():
        raise ConfigError(
            "an empty query",
            where="search",
            fix='Write a sentence: search BEST.pt "a dog runs"',
        )
    unknown = info.text_encoder.unknown_words(query)
    if unknown:
        log.warning(f"the model does not know, and ignores: {', '.join(unknown)}")
    hits = search.search_text(model, info, folder, query, top if records is None else None)
    if records:
        ranked = [paths.replace("{}", hit.label) for hit in hits]
        _write(records, search_record.record_of(query, own and paths.replace("{}", own), ranked))
    details = {"query": query} | ({"index": index, "video": own} if own else {})
    _show(details, unknown, "video", hits[:top], as_json)


def _show(asked: dict, unknown: list[str], kind: str, hits: "list[Hit]", as_json: bool) -> None:
    if as_json:
        answers = [{"rank": hit.rank, "score": hit.score, kind: hit.label} for hit in hits]
        click.echo(json.dumps(asked | {"unknown_words": unknown, "results": answers}, indent=1))
        return
    if "index" in asked:
        click.echo(f"{asked['query']}   (of {asked['video']})")
    click.echo(f"{'rank':>4} {'score':>8}   {kind}")
    for hit in hits:
        label = hit.label.encode("utf-8", "backslashreplace").decode()
        click.echo(f"{hit.rank:>4,} {hit.score:>8.4f}   {label}")


def _write(path: Path, value: dict) -> None:
    from pipeline.core.files import atomic_write

    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
    log.info(f"{path}: written")


def _prompt(answer: object, folder: Path) -> None:
    """Ask until q or the end of input: t and a sentence, i and the number of a sentence of the
    evaluated split.
    """
    from pipeline.search import search_record

    while True:
        try:
            kind, _, rest = (
                click.prompt("t SENTENCE, i NUMBER, or q", prompt_suffix=": ")
                .strip()
                .partition(" ")
            )
        except click.Abort:  # the end of input
            return
        if kind == "q":
            return
        try:
            if kind == "i" and rest.strip().isdecimal():
                text, own = search_record.sentence(folder, int(rest))
                _show(
                    {"query": text, "index": int(rest), "video": own},
                    [],
                    "video",
                    answer(text),
                    False,
                )
            elif kind == "t" and rest.strip():
                _show({}, [], "video", answer(rest.strip()), False)
            else:
                click.echo("Try again: t a dog runs, i 12, or q.")
        except ConfigError as error:
            click.echo(str(error))
