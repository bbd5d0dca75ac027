"""Write the path files that published readers expect.

    python cli.py paths data/msrvtt/videos --dataset msrvtt-9k --out lists

video_path.json is {file name without suffix: path below VIDEOS} (CenterCLIP, DGL). With --dataset
come the two lists of alro923/DRL for one split: video_dict.json {video id: path} and
sentence_dict.json {"0": [video id, [caption, start, end]], ...}.
"""

from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._dataset import find_dataset
from pipeline.commands._shared import config_option
from pipeline.core.files import atomic_write
from pipeline.datasets.parts import path_files


@click.command(help=__doc__)
@click.argument("videos", type=click.Path(path_type=Path))
@click.option("--dataset", help="dataset whose captions go into the lists of alro923/DRL")
@click.option("--split", default="test", help="split of that dataset  [test]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path(), help="folder to write  [.]"
)
@config_option
def command(videos: Path, dataset: str | None, split: str, out: Path, path: Path | None) -> None:
    found = path_files.video_paths(videos)
    written = {"video_path.json": found}
    if dataset:
        annotations = find_dataset(config.load(path), dataset, videos).load()
        below = path_files.by_id(annotations, videos.absolute(), found.items())
        # a path that begins at the root of this machine would be of no use on another
        above = Path() if videos.is_absolute() else videos
        listed, missing = path_files.fork_videos(
            annotations, split, {i: (above / name).as_posix() for i, name in below.items()}
        )
        if missing:
            log.warning(
                f"{len(missing):,} videos of {split} have no file and are left out:"
                f" {', '.join(missing[:3])}"
            )
        written |= {
            "video_dict.json": listed,
            "sentence_dict.json": path_files.fork_sentences(annotations, split),
        }
    for name, value in written.items():
        atomic_write(out / name, path_files.text(value))
        click.echo(f"{out / name}   {len(value):,} entries")
