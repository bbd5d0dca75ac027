"""Convert the caption pickle of MSVD to JSON.

    python cli.py convert-captions data/msvd/raw-captions.pkl

The JSON is {video id: [caption, ...]}. The pickle is read by an unpickler that admits containers,
strings and numbers and runs no code.
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
    help="JSON file to write  [beside the pickle]",
)
@click.option("--force", is_flag=True, help="replace an existing file")
def command(pickle: Path, out: Path | None, force: bool) -> None:
    from pipeline.datasets.base import Faults
    from pipeline.datasets.msvd import read_captions

    out = out or pickle.with_suffix(".json")
    if out.exists() and not force:
        raise ConfigError(
            "the file exists already", where=out, fix="Choose another --out, or give --force."
        )
    faults = Faults(pickle)
    captions = read_captions(pickle, faults)
    faults.raise_if_any()
    atomic_write(out, json.dumps(captions, ensure_ascii=False, indent=0) + "\n")
    click.echo(f"{out}: {sum(map(len, captions.values())):,} captions of {len(captions):,} videos")
