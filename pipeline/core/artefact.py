"""Artefact: what one step hands to the next (or a user hands to a single stage): a kind, a place,
and digests.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.files import DigestCache
from pipeline.core.state import STATE, Record, digest, read_manifest, usable_records

_OURS = frozenset({STATE, "_new", "_previous", "_parts"})


@dataclass(frozen=True)
class Artefact:
    """`kind` is one of: annotations, video_files, frame_store, features, vocab, tags, word_vectors,
    tensors, checkpoint, results, report.

    fingerprint: digest of how it is made (stage, version, options, inputs): known before it exists.
    content: digest of what is in it ("" until it exists): changes when data change under the same
    options.
    options: the resolved options it was made with (for annotations: {"type": ..., <dataset
    options>}).
    """

    kind: str
    path: Path
    fingerprint: str = ""
    content: str = ""
    step: str = ""
    options: dict = field(default_factory=dict)

    @property
    def known_content(self) -> str:
        """`content` as far as it is known without reading anything."""
        return self.content

    @property
    def manifest(self) -> dict | None:
        """The manifest of the step that made it, or None for a raw file or folder, or an unfinished
        step.
        """
        return read_manifest(self.path)

    def records(self) -> list[Record]:
        """Return the usable items of the step that made it, in item order; [] for raw files and
        folders.
        """
        return usable_records(self.path)


class GivenArtefact(Artefact):
    """A file or folder that lies ready and that no step of ours made. `content` is read when it is
    first asked for: many steps look at single items instead.

    remembered: where digests of unchanged files are kept (a step's `_state/digests.jsonl`).
    """

    def __init__(
        self, kind: str, path: Path, fingerprint: str = "", remembered: Path | None = None
    ):
        super().__init__(kind, path, fingerprint)
        self.__dict__["_remembered"] = remembered

    @property
    def content(self) -> str:
        if "_content" not in self.__dict__:
            found = content_of_input(self.path, self.__dict__["_remembered"])
            self.__dict__["_content"] = found
        return self.__dict__["_content"]

    @property
    def known_content(self) -> str:
        return self.__dict__.get("_content", "")

    @content.setter
    def content(self, value: str) -> None:
        """The base class sets its default; what counts is on disk."""


def content_of_input(path: Path, remembered: Path | None = None) -> str:
    """Digest of a raw input: of the bytes of a file, of names and bytes of the files in a folder;
    "" while it is not there. Times do not count.
    """
    cache = DigestCache(remembered)
    if path.is_file():
        found = cache(path)
    else:
        files = sorted(
            p
            for p in path.rglob("*")
            if _OURS.isdisjoint(p.relative_to(path).parts) and p.is_file()
        )
        pairs = [[p.relative_to(path).as_posix(), cache(p)] for p in files]
        found = digest(pairs) if pairs else ""
    cache.save()
    return found
