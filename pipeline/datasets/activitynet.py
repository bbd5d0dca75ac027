"""ActivityNet Captions, a paragraph per video: all its sentences joined; tested on val_1.

Ids of a list without captions are skipped, and items stand in the order of the list. The published
readers expect different file names and keep different videos: `file_names`, `video_paths`,
`only_listed`, `exclude`.
Source: docs/specs/datasets.md, section 5.
"""

import math
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline.datasets.base import Annotations, Faults, Video
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import caption_text, read_ids, read_json
from pipeline.datasets.parts.benchmark import AnnotationFile, Benchmark, Collector, with_captions

_SOURCE = (
    "knightyxp/DGL: dataset/activitynet/ (the same in mzhaoshuai/CenterCLIP:"
    " misc/splits/activitynet/)"
)
_PREFIX = "v_"
_LONGEST = 1e6  # seconds
_BROKEN = ("v_NHznDFD3V3k",)


class Options(benchmark.Options):
    train_ids: Path = Field(Path("train_ids.json"), description="ids to train on, .json or .txt")
    test_ids: Path = Field(
        Path("val_ids.json"), description="ids of val and test (one set, as published)"
    )
    train: Path = Field(Path("train.json"), description="captions of the training videos")
    test: Path = Field(Path("val_1.json"), description="captions of the test videos")
    file_names: Literal["bare", "prefixed"] = Field(
        "bare",
        description="files are called ID (CLIP4Clip, CenterCLIP, DGL) or v_ID (DiffusionRet, HBI)",
    )
    words: int = Field(
        64, ge=3, description="tokens of a paragraph in the published protocol (CenterCLIP: 77)"
    )
    frames: int = Field(
        64,
        ge=1,
        description="frames of a video in the published protocol (CenterCLIP: 60; HBI: 32)",
    )


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = (
        "http://activity-net.org/download.html (YouTube; ask there for the missing ones)"
    )
    example: ClassVar[str] = "v_sJFgo9H6zNo"
    excluded: ClassVar[dict[str, tuple[str, ...]]] = {"centerclip": _BROKEN, "dgl": _BROKEN}

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        # with the list that CenterCLIP and DGL ship; the broken video is one of the test
        listed, lost = self.options.only_listed, int(bool(self.options.exclude))
        train, test = (9933, 4870 - lost) if listed else (10_009, 4917 - lost)
        counts = {"train": (train, train)} if self.has_published("train_ids", "train") else {}
        if self.has_published("test_ids", "test"):
            counts |= {"val": (test, test), "test": (test, test)}
        return counts

    def file_stem(self, video_id: str) -> str:
        # exactly two characters: some YouTube ids begin with v_ themselves
        return video_id if self.options.file_names == "prefixed" else video_id.removeprefix(_PREFIX)

    @property
    def file_pattern(self) -> str:
        return "<v_ID>.mp4" if self.options.file_names == "prefixed" else "<ID without v_>.mp4"

    def files(self) -> dict[str, AnnotationFile]:
        whats = {
            "train_ids": "ids of train",
            "test_ids": "ids of val and test",
            "train": "captions of train",
            "test": "captions of val and test",
        }
        root = self.options.root
        return {
            role: AnnotationFile(root / getattr(self.options, role), what, _SOURCE)
            for role, what in whats.items()
        }

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        for split in ("train", "test"):
            listed = files[f"{split}_ids"].path
            captions = _read_captions(files[split].path, faults)
            notes = collector.annotations.notes
            ids = with_captions(
                read_ids(listed, faults), captions, listed.name, notes, faults, tolerate=True
            )
            paragraphs = ((i, " ".join(captions[i][1])) for i in ids)
            collector.add(
                split, paragraphs, {i: Video(i, start=0.0, end=captions[i][0]) for i in ids}
            )
            sentences = sum(len(captions[i][1]) for i in ids)
            collector.note(f"{split}: {len(ids):,} paragraphs of {sentences:,} sentences")
        collector.same("val", "test")
        return collector.annotations


def _read_captions(path: Path, faults: Faults) -> dict[str, tuple[float, list[str]]]:
    """Return {video id: (end in whole seconds, sentences)}: the published segment, which is the
    whole video.
    """
    captions = {}
    for video_id, entry in read_json(path, "captions of ActivityNet")[1].items():
        where = f"{path.name}: {video_id!r:.40}"
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        duration = entry.get("duration") if isinstance(entry, dict) else None
        if not isinstance(sentences, list) or not sentences:
            faults.add("video without a list of sentences", where)
        elif (
            not isinstance(duration, int | float)
            or isinstance(duration, bool)
            or not 0 < duration < _LONGEST
        ):
            faults.add("video without a duration in seconds", f"{duration!r} ({where})")
        elif faults.check_id(video_id, where):
            captions[video_id] = (
                float(math.ceil(duration)),
                [caption_text(s, where, faults) for s in sentences],
            )
    return captions
