"""Artefact: what one step hands to the next (or a user hands to a single stage): a kind, a place,
and digests.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.state import Record, read_manifest, usable_records


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
    def manifest(self) -> dict | None:
        """The manifest of the step that made it; None for a raw file or folder, or an unfinished
        step.
        """
        return read_manifest(self.path)

    def records(self) -> list[Record]:
        """The usable items of the step that made it, in item order; [] for raw files and
        folders.
        """
        return usable_records(self.path)
