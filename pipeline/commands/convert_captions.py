"""Convert the caption pickle of MSVD to JSON, once and for all: {video id: [caption, ...]}.

python cli.py convert-captions data/msvd/raw-captions.pkl --out data/msvd/raw-captions.json

The pickle is read by an unpickler that admits containers, strings and numbers and runs nothing.
"""

import json
from pathlib import Path

import click

from pipeline.core.files import atomic_write
from pipeline.errors import ConfigError


@click.command(help=__doc__)
@click.argument("pickle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="JSON file  [beside the pickle, as .json]",
)
@click.option("--force", is_flag=True, help="replace a file that is there already")
def command(pickle: Path, out: Path | None, force: bool) -> None:
    from pipeline.datasets.base import Faults
    from pipeline.datasets.msvd import read_captions

    out = out or pickle.with_suffix(".json")
    if out.exists() and not force:
        raise ConfigError(
            "is there already", where=out, fix="Choose another --out, or give --force."
        )
    faults = Faults(pickle)
    captions = read_captions(pickle, faults)
    faults.raise_if_any()
    atomic_write(out, json.dumps(captions, ensure_ascii=False, indent=0) + "\n")
    click.echo(f"{out}: {sum(map(len, captions.values())):,} captions of {len(captions):,} videos")
