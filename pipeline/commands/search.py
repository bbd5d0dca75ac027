"""Find videos and moments by words, clips and pictures.

    python cli.py search INDEX "a dog runs" --top 5
    python cli.py search INDEX "2:a dog" + ./pool.jpg - "fruit" --html answers.html
    python cli.py search data/work/demo/train@dual "a red circle moves left"
    python cli.py search data/work/demo/train@dual --prompt --records asked.json

INDEX is what `index` wrote. A CHECKPOINT is searched in the results that `evaluate` has of it.
--records writes the answers as alro923/DRL does: {"text", "video", "video_path_list"}. Without a
query it writes one record for every sentence that was evaluated, with --prompt one for every
sentence that was asked. --prompt takes sentences, or the dialogue of that program: t, Enter, a
sentence; i, Enter, a number; q.
"""

from pathlib import Path

import click

from pipeline.errors import ConfigError

_FILE = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("target", metavar="INDEX|CHECKPOINT", type=_FILE)
@click.argument("query", nargs=-1)
@click.option("--video", metavar="ID|FILE", help="find what is like a video; CHECKPOINT: captions")
@click.option("--image", type=_FILE, metavar="FILE", help="find what is like a picture")
@click.option("--queries", type=_FILE, metavar="FILE", help="many queries, one per line")
@click.option(
    "--prompt", is_flag=True, help="ask for one query after another (also t, i and q, as DRL's)"
)
@click.option(
    "--index",
    type=click.IntRange(0),
    metavar="N",
    help="CHECKPOINT: instead of a query, sentence N of the split",
)
@click.option(
    "--top", type=click.IntRange(1), metavar="INTEGER", default=10, help="answers to show  [10]"
)
@click.option(
    "--min-score", type=float, metavar="NUMBER", help="only answers of this score or more"
)
@click.option("--path", "paths", default="", metavar="GLOB", help="only videos whose path fits")
@click.option(
    "--per-video",
    type=click.IntRange(0),
    metavar="INTEGER",
    default=0,
    help="answers per video at most, 0: any number  [0]",
)
@click.option("--exact", is_flag=True, help="let the model score every row (slow for some models)")
@click.option("--root", type=_FILE, help="INDEX: where the videos lie now  [where they were]")
@click.option("--checkpoint", type=_FILE, help="INDEX: its checkpoint  [where it was]")
@click.option(
    "--videos", type=_FILE, help="CHECKPOINT: the results to search  [found beside the checkpoint]"
)
@click.option("--features", type=_FILE, help="with --video: features of videos that are not known")
@click.option("--records", type=_FILE, metavar="FILE", help="write all answers here (.json)")
@click.option(
    "--paths",
    "template",
    default="{}",
    help=(
        "what records, and answers without a known file, call a video, {} for its id, e.g."
        " videos/{}.mp4  [{}]"
    ),
)
@click.option("--html", type=_FILE, metavar="FILE", help="write a page with pictures")
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(target: Path, query: tuple[str, ...], **options: object) -> None:
    from pipeline.commands._search_request import Request
    from pipeline.commands._search_run import run

    request = Request(target, query, **options)
    asked = bool(query) + sum(
        value is not None and value is not False
        for value in (request.video, request.image, request.queries, request.index)
    )
    asked += request.prompt
    records_fit = request.records is None or not (request.video or request.image or request.queries)
    if asked > 1 or not (asked or request.records) or not records_fit:
        raise ConfigError(
            "give one of: a query (which may name clips and pictures), --video, --image, --queries,"
            " --prompt, --index; --records goes with a query, --prompt or --index, or alone",
            where="search",
            fix='For example: search INDEX "a dog runs"',
        )
    run(request)
