"""Download listed videos, and compress each one on arrival.

    python cli.py fetch --links list.txt --out data/lsmdc/videos --compress '{fps: 3}' --jobs 8

TVRKIT_FETCH_USER and TVRKIT_FETCH_PASSWORD in the environment, or a netrc file, give user and
password. An interrupted file continues where it stopped. With `compress` the original is removed
once the small file is verified.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from pipeline.core import stage
from pipeline.core.files import commit_file, disk_name, sync_folder, written
from pipeline.core.results.generations import NEW
from pipeline.core.stage import Item, Outcome
from pipeline.core.state import STATE, Record, digest
from pipeline.errors import ItemError
from pipeline.fetching.links import Link, read_links
from pipeline.video.compress import Options as Compression
from pipeline.video.compress import compress

_HOUR = 3600.0


class Options(BaseModel, extra="forbid"):
    links: list[Path] = Field(
        min_length=1,
        description=(
            "text files with an address per line, followed by its SHA-256 or MD5 if that is known"
        ),
    )
    compress: Compression | None = Field(
        None,
        description="options of the compress stage, {} for its defaults; null keeps the download",
    )
    folders: bool = Field(
        False, description="let ids begin with the last folder of the address (published layout)"
    )
    netrc: Path | None = Field(
        None, description="file with user and password of each host  [$NETRC, ~/.netrc]"
    )
    plain_password: bool = Field(
        False, description="send the password to http addresses too, where others can read it"
    )
    rate: float | None = Field(
        None, gt=0, description="MB per second for all workers together; null: no limit"
    )
    tries: int = Field(
        5,
        ge=1,
        le=100,
        description="attempts in a row with less than 1 MB, after which a file is set aside",
    )
    pause: float = Field(
        1.0, ge=0, le=60, description="seconds before the second attempt; they double up to 60"
    )
    patience: float = Field(
        30.0, gt=0, description="seconds without data, after which a connection is closed"
    )
    max_bytes: int = Field(16 << 30, ge=1, description="largest file, in bytes")
    max_hours: float = Field(
        12.0, gt=0, description=("hours for one file; what has arrived by then is kept")
    )

    @field_validator("links", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str | Path) else value


class Stage(stage.Stage):
    makes = "video_files"
    runs = "workers"
    store = "files"
    watches_inputs = True
    # how a file comes here changes nothing in it; the address is part of the item's own key
    indifferent = frozenset(Options.model_fields) - {"compress"}
    Options = Options

    _ignored = 0

    def items(self) -> Iterable[Item]:
        from pipeline.fetching.credentials import check_encrypted, check_servers

        found = read_links(self.options.links, self.options.folders)
        check_servers((link.server for link in found.links), self.options.netrc)
        if not self.options.plain_password:
            check_encrypted((link.url for link in found.links), self.options.netrc)
        self._ignored = found.ignored
        return [
            Item(link.id, digest([link.url, link.checksum]), link, link.shown)
            for link in found.links
        ]

    def timeout(self, item: Item) -> float:
        return self.options.max_hours * _HOUR

    def process(self, item: Item) -> Outcome:
        from pipeline.fetching import download
        from pipeline.fetching.credentials import login
        from pipeline.fetching.http import Manners
        from pipeline.fetching.rate_limit import RateLimit

        link: Link = item.payload
        options, part = self.options, self._part(link)
        rules = download.Rules(
            Manners(options.patience, options.plain_password),
            options.tries,
            options.pause,
            options.max_bytes,
        )
        limit = RateLimit(self.out / STATE / "rate", options.rate and options.rate * 1e6)
        sha256 = download.download(link, part, rules, login(link.server, options.netrc), limit)
        fetched = {"fetched_bytes": part.stat().st_size, "fetched_sha256": sha256}
        try:
            outcome = (
                self._compressed(item, part) if options.compress else self._as_it_is(item, part)
            )
        except ItemError as error:
            if error.reason not in ("io_error", "out_of_memory"):
                download.discard(
                    part
                )  # it came whole and is no usable video: the next try needs another file
            raise
        download.discard(part)
        outcome.facts = fetched | outcome.facts
        return outcome

    def _compressed(self, item: Item, part: Path) -> Outcome:
        return compress(part, self.out, disk_name(item.id, ".mp4"), self.options.compress)

    def _as_it_is(self, item: Item, part: Path) -> Outcome:
        """Return the download under its name, if it can be opened and its first frame decodes."""
        from pipeline.video.reader import probe

        info = probe(part)
        is_cut_short = _is_cut_short(part)
        name = disk_name(item.id, item.payload.suffix)
        (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        commit_file(part, self.out / name)
        sync_folder(part.parent)
        facts = {
            "seconds": round(info.seconds, 3),
            "width": info.width,
            "height": info.height,
            "codec": info.codec,
        }
        outputs = {name: written(self.out / name)}
        if is_cut_short:
            return Outcome(
                status="damaged",
                value=None,
                outputs=outputs,
                facts=facts,
                reason="truncated",
                message="the film ends early",
            )
        return Outcome("ok", None, outputs, facts)

    def finish(self, records: list[Record]) -> dict:
        self._remove_parts({record.id for record in records})
        return {
            "videos": len(records),
            "damaged": sum(record.status == "damaged" for record in records),
            "fetched_bytes": sum(record.facts["fetched_bytes"] for record in records),
            "bytes": sum(facts["bytes"] for record in records for facts in record.outputs.values()),
            "ignored_lines": self._ignored,
        }

    def _remove_parts(self, done: set[str]) -> None:
        """Keep only partial files that another attempt can continue."""
        links = read_links(self.options.links, self.options.folders).links
        waiting = {self._part(link).stem for link in links if link.id not in done}
        folder = self._part_folder
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.stem not in waiting:
                path.unlink()

    @property
    def _part_folder(self) -> Path:
        # a new result is built in a folder of its own; what has come stays with the whole step
        step = self.out.parent if self.out.name == NEW else self.out
        return step / STATE / "partial"

    def _part(self, link: Link) -> Path:
        return self._part_folder / (hashlib.sha256(link.url.encode()).hexdigest() + ".part")


def _is_cut_short(part: Path) -> bool:
    """Return whether a film ends before its own structure says.

    A server that says a wrong length is believed by every client; the film itself tells.
    """
    from pipeline.video.container import open_video
    from pipeline.video.frame_rule import Limits

    with open_video(part, Limits()) as video:
        return video.is_cut_short
