"""MSVD: 1,970 YouTube clips with about 40 captions each; every caption is a query.

The published captions are a pickle, read by an unpickler that admits nothing but containers and
strings. `python cli.py convert-captions` writes them as JSON once and for all; raw-captions.json is
read first when it is there.
Source: docs/specs/datasets.md, section 3.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import caption_text, read_json
from pipeline.datasets.parts.benchmark import (
    AnnotationFile,
    Benchmark,
    Collector,
    first_existing,
    texts_of_list,
)
from pipeline.errors import DataError
from pipeline.text import pickles

_PUBLISHED = {"train": (1200, 48_774), "val": (100, 4290), "test": (670, 27_763)}
_CAPTION_FILES = ("raw-captions.json", "raw-captions.pkl")
_CAPTIONS = "captions of all videos; raw-captions.json of `convert-captions` will do as well"
_ZIP = "msvd_data.zip, https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msvd_data.zip"


class Options(benchmark.Options):
    captions: Path | None = Field(
        None, description="caption file [raw-captions.json, else raw-captions.pkl]"
    )
    train: Path = Field(
        Path("train_list.txt"), description="ids to train on (DGL asks for train_list_120.txt)"
    )
    val: Path = Field(Path("val_list.txt"), description="ids to choose the best epoch on")
    test: Path = Field(Path("test_list.txt"), description="ids of the final ranking")


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = (
        "YouTubeClips.tar, https://www.cs.utexas.edu/users/ml/clamp/videoDescription/"
    )
    example: ClassVar[str] = "-4wsuPCjDBc_5_15"
    suffix: ClassVar[str] = ".avi"

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        return {split: counts for split, counts in _PUBLISHED.items() if self.has_published(split)}

    def files(self) -> dict[str, AnnotationFile]:
        options = self.options
        root, name = options.root, options.captions
        path = root / name if name else first_existing(root, _CAPTION_FILES, "raw-captions.pkl")
        files = {"captions": AnnotationFile(path, _CAPTIONS, _ZIP)}
        for split in ("train", "val", "test"):
            files[split] = AnnotationFile(root / getattr(options, split), f"list of {split}", _ZIP)
        return files

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        captions = read_captions(files["captions"].path, faults)
        for split in ("train", "val", "test"):
            collector.add(split, texts_of_list(files[split].path, captions, faults))
        return collector.annotations


def read_captions(path: Path, faults: Faults) -> dict[str, list[str]]:
    """Return {video id: captions} of raw-captions.pkl or of the JSON made from it. DataError if it
    is something else.
    """
    value = (
        read_json(path, "lists of captions by video")[1]
        if path.suffix == ".json"
        else pickles.read(path)
    )
    if not isinstance(value, dict) or not value:
        kind = f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__}"
        fix = (
            "Is it the file of another data set? raw-captions.pkl of msvd_data.zip is a dictionary."
        )
        raise DataError(f"holds {kind}, not captions by video", where=path, fix=fix)
    captions: dict[str, list[str]] = {}
    for video_id, entries in value.items():
        where = f"{path.name}: {video_id!r:.40}"
        if not isinstance(video_id, str) or not isinstance(entries, list | tuple):
            faults.add("entry that is not an id with a list of captions", where)
        elif not entries:
            faults.add("video without a caption", where)
        else:
            captions[video_id] = [_text(entry, where, faults) for entry in entries]
    return captions


def _text(entry: object, where: str, faults: Faults) -> str:
    """Return a caption, which the pickle keeps as a list of words."""
    if isinstance(entry, list | tuple) and all(isinstance(word, str) for word in entry):
        entry = " ".join(entry)
    return caption_text(entry, where, faults)
