"""Rank videos for a typed query, or captions for a video, by a trained model.

python cli.py search data/work/demo/train "a red circle moves left" --top 5
"""

import json
from pathlib import Path

import click

from pipeline import log
from pipeline.errors import ConfigError


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option("--video", metavar="ID", help="instead of a query: a video, to rank captions for")
@click.option(
    "--features", type=click.Path(path_type=Path), help="with --video: features of videos that were not evaluated"
)
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="results (or one checkpoint's folder in them) with the encodings  [found beside the checkpoint]",
)
@click.option("--top", type=click.IntRange(1), metavar="INTEGER", default=10, help="answers to show  [10]")
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(
    checkpoint: Path,
    query: str | None,
    video: str | None,
    features: Path | None,
    videos: Path | None,
    top: int,
    as_json: bool,
) -> None:
    if (query is None) == (video is None):
        raise ConfigError(
            "give either a query or --video", where="search", fix='For example: search BEST.pt "a dog runs"'
        )
    from pipeline.evaluation import search
    from pipeline.training.checkpoint import find, load_model

    path = find(checkpoint)
    folder = search.find_results(path, videos)
    model, info = load_model(path)
    unknown: list[str] = []
    if query is not None:
        unknown = search.unknown_words(info, query)
        if unknown:
            log.warning(f"not known to the model, and left aside: {', '.join(unknown)}")
        hits = search.search_text(model, info, folder, query, top)
    else:
        hits = search.search_video(model, folder, video, features, top)
    if as_json:
        kind = "video" if query is not None else "caption"
        asked = {"query": query} if query is not None else {"video": video}
        answers = [{"rank": hit.rank, "score": hit.score, kind: hit.label} for hit in hits]
        click.echo(json.dumps(asked | {"unknown_words": unknown, "results": answers}, indent=1))
        return
    click.echo(f"{'rank':>4} {'score':>8}   {'video' if query is not None else 'caption'}")
    for hit in hits:
        label = hit.label.encode("utf-8", "backslashreplace").decode()
        click.echo(f"{hit.rank:>4,} {hit.score:>8.4f}   {label}")
