"""Download published weights, and compare their SHA-256.

    python cli.py fetch weights ViT-B/32
    python cli.py fetch weights resnet152 --out data/weights

NAME: a CLIP of OpenAI, or a network of the features step. Without a name all are listed. A download
that was cut off goes on where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from pipeline import log, registry
from pipeline.errors import ConfigError, DataError, ItemError

_FOLDER = Path("data/weights")
_DIGITS = 64  # of a whole SHA-256
_TORCH = "https://download.pytorch.org/models"


@dataclass(frozen=True)
class Published:
    """A file of weights. sha256: all its digits, or the first ones that are published."""

    file: str
    url: str
    sha256: str


def known() -> dict[str, Published]:
    """Return what can be fetched, by name."""
    from models.clip.sizes import FILES
    from pipeline.cnn.networks import NETWORKS, digits

    found = {name: Published(f.name, f.url, f.sha256) for name, f in FILES.items()}
    for name, network in NETWORKS.items():
        for file in network.files[:1]:
            found[name] = Published(file, f"{_TORCH}/{file}", digits(file))
    return found


@click.command(help=__doc__)
@click.argument("name", required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=_FOLDER,
    help="folder to write  [data/weights]",
)
@click.option("--url", metavar="URL", help="another address of the same file (a mirror)")
def command(name: str | None, out: Path, url: str | None) -> None:
    everything = known()
    if name is None:
        for each, published in everything.items():
            click.echo(f"{each:<18} {published.file:<34} {published.url}")
        return
    if name not in everything:
        raise ConfigError(
            f"no published weights are called {name!r}",
            where="fetch weights",
            fix=registry.suggest(name, list(everything)),
        )
    click.echo(fetch(everything[name], out, url))


def fetch(published: Published, folder: Path, url: str | None = None) -> Path:
    """Return the path of the file, downloaded unless it is there already. url: instead of its own.

    Raises DataError if it does not come, or is another file.
    """
    from pipeline.core.files import commit_file, file_digest, sync_folder
    from pipeline.fetching.download import discard

    target = folder / published.file
    if target.is_file():
        _expect(published, file_digest(target), target)
        log.info(f"{target}: is there, SHA-256 as published")
        return target
    part = target.with_name(f"{target.name}.part")
    digest = _downloaded(published, url or published.url, part)
    try:
        _expect(published, digest, target)
        commit_file(part, target)
    finally:
        discard(part)
    sync_folder(folder)
    log.info(f"{target}: {target.stat().st_size:,} bytes, SHA-256 as published")
    return target


def _downloaded(published: Published, url: str, part: Path) -> str:
    from pipeline.fetching import download
    from pipeline.fetching.links import Link
    from pipeline.fetching.rate_limit import RateLimit

    whole = published.sha256 if len(published.sha256) == _DIGITS else ""
    link = Link(published.file, url, Path(published.file).suffix, whole)
    log.info(f"from {link.shown}")
    try:
        limit = RateLimit(part.with_suffix(".rate"), None)
        return download.download(link, part, download.Rules(), None, limit)
    except ItemError as error:
        raise DataError(
            f"{error.message} ({link.shown})",
            where=published.file,
            fix="Try again: it goes on where it stopped. Or load it elsewhere and put it there.",
        ) from error


def _expect(published: Published, digest: str, file: Path) -> None:
    if not digest.startswith(published.sha256):
        raise DataError(
            f"its SHA-256 is {digest}, and the published file's begins with {published.sha256}",
            where=file,
            fix="Fetch it again (a file that is there: remove it first).",
        )
