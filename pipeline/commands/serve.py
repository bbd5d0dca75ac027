"""Serve a search page and a JSON API over indexes.

    python cli.py serve data/index
    python cli.py serve data/films data/talks --port 9000

The page needs no network beside the server. It listens on this machine alone unless --host says
otherwise; whoever reaches it can play every film of the index. Ctrl-C or SIGTERM ends it.
Needs requirements-serve.txt: python -m pip install -r requirements-serve.txt
"""

import importlib.util
from pathlib import Path

import click

from pipeline import log
from pipeline.errors import ConfigError, SystemRefused

_FOLDER = click.Path(path_type=Path)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command(help=__doc__)
@click.argument("indexes", metavar="INDEX...", nargs=-1, required=True, type=_FOLDER)
@click.option("--host", default="127.0.0.1", help="address to listen on  [127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="INTEGER",
    default=8000,
    help="port, 0: any that is free  [8000]",
)
@click.option("--root", type=_FOLDER, help="where the videos lie now  [where they were]")
@click.option("--checkpoint", type=_FOLDER, help="the checkpoint of the indexes  [where it was]")
@click.option(
    "--upload-mb",
    type=click.IntRange(1, 4096),
    metavar="INTEGER",
    default=64,
    help="MB of an uploaded clip or picture  [64]",
)
def command(
    indexes: tuple[Path, ...],
    host: str,
    port: int,
    root: Path | None,
    checkpoint: Path | None,
    upload_mb: int,
) -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)}: not installed",
            where="serve",
            fix="Run: python -m pip install -r requirements-serve.txt",
        )
    from pipeline.serve.application import application
    from pipeline.serve.server import listen, run
    from pipeline.serve.shelf import Shelf

    shelf = Shelf(list(indexes), root, checkpoint)
    hosts = [*_LOOPBACK, host] if host in _LOOPBACK else ["*"]
    try:
        socket = listen(host, port)
    except OSError as error:
        raise SystemRefused(
            f"cannot listen there: {error.strerror or error}",
            where=f"{host}:{port}",
            fix="Choose another --port, or --port 0 for any that is free.",
        ) from error
    for name in shelf.names:
        log.info(f"{name}: {shelf.describe(name)}")
    address = f"[{host}]" if ":" in host else host
    click.echo(f"http://{address}:{socket.getsockname()[1]}/")
    run(application(shelf, hosts, upload_mb << 20), socket)
