"""VATEX, English: 28,991 clips with 10 captions each; every caption is a query.

Captions as DGL has them (ref_captions.json), as EMCL has them (vatex_data.json, key enCap), or as
the data set was released (lists of {"videoID", "enCap"}, a file for training and one for
validation). DGL validates on the test list (`val: test_list.txt`). Source: docs/specs/datasets.md,
section 7.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, field_validator

from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import caption_text, read_json
from pipeline.datasets.parts.benchmark import AnnotationFile, Benchmark, Collector, texts_of_list

_RELEASED = ("vatex_training_v1.0.json", "vatex_validation_v1.0.json")
_CAPTION_FILES = (("ref_captions.json",), ("vatex_data.json",), _RELEASED)
_DGL, _EMCL, _RELEASE = (
    "lists of captions by video",
    "captions of VATEX (enCap)",
    "the VATEX release (videoID, enCap)",
)
_SOURCE = "jpthu17/EMCL: video_retrieval/As_an_inference_module/data/vatex_data/"
_SITE = "https://eric-xw.github.io/vatex-website/download.html"
_PUBLISHED = {
    "train_list.txt": (25_991, 259_910),
    "val_list.txt": (1500, 15_000),
    "test_list.txt": (1500, 15_000),
    "test1k5_sec_list.txt": (1500, 15_000),
}


class Options(benchmark.Options):
    captions: list[Path] = Field(
        [],
        description=(
            "caption files [ref_captions.json, else vatex_data.json, else the two of the release]"
        ),
    )
    train: Path = Field(Path("train_list.txt"), description="ids to train on")
    val: Path = Field(
        Path("val_list.txt"), description="ids to choose the best epoch on (DGL: test_list.txt)"
    )
    test: Path = Field(Path("test_list.txt"), description="ids of the final ranking")

    @field_validator("captions", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str | Path) else value or []


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = f"{_SITE} (YouTube clips)"
    example: ClassVar[str] = "Ptf_2VRj-V0_000122_000132"

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        lists = {split: getattr(self.options, split).name for split in ("train", "val", "test")}
        return {split: _PUBLISHED[name] for split, name in lists.items() if name in _PUBLISHED}

    def files(self) -> dict[str, AnnotationFile]:
        options = self.options
        root, names = options.root, options.captions or self._captions_there()
        what = "captions"
        if not (root / names[0]).exists():
            what += (
                f" of all videos; vatex_data.json, or the released {' and '.join(_RELEASED)}, will"
                " do as well"
            )
        files = {
            f"captions {n}": AnnotationFile(root / name, what, _SITE)
            for n, name in enumerate(names)
        }
        for split in ("train", "val", "test"):
            files[split] = AnnotationFile(
                root / getattr(options, split), f"list of {split}", _SOURCE
            )
        return files

    def _captions_there(self) -> tuple[str, ...]:
        """Return the first of the published caption files that is there; DGL's if none is."""
        root = self.options.root
        return next(
            (names for names in _CAPTION_FILES if (root / names[0]).is_file()), _CAPTION_FILES[0]
        )

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        captions: dict[str, list[str]] = {}
        for path in [file.path for role, file in files.items() if role.startswith("captions")]:
            found, layout = _read_captions(path, faults)
            for video_id in captions.keys() & found.keys():
                faults.add("video in two caption files", f"{video_id!r:.40} ({path.name})")
            captions |= found
            collector.note(f"{path.name}: {layout}, {sum(map(len, found.values())):,} captions")
        for split in ("train", "val", "test"):
            collector.add(split, texts_of_list(files[split].path, captions, faults))
        return collector.annotations


def _read_captions(path: Path, faults: Faults) -> tuple[dict[str, list[str]], str]:
    """Return {video id: English captions}, and the layout they were in."""
    layout, value = read_json(path, _DGL, _EMCL, _RELEASE)
    captions: dict[str, list[str]] = {}
    for video_id, entry in _released(value, path, faults) if layout == _RELEASE else value.items():
        where = f"{path.name}: {video_id!r:.40}"
        texts = entry.get("enCap") if isinstance(entry, dict) else entry
        if video_id in captions:
            faults.add("video that occurs twice", where)
        elif not isinstance(texts, list) or not texts:
            faults.add("video without a list of captions", where)
        else:
            captions[video_id] = [caption_text(text, where, faults) for text in texts]
    return captions, layout


def _released(entries: list, path: Path, faults: Faults) -> Iterator[tuple[str, dict]]:
    """Yield (video id, entry) of the released layout."""
    for n, entry in enumerate(entries):
        if isinstance(entry, dict) and isinstance(entry.get("videoID"), str):
            yield entry["videoID"], entry
        else:
            faults.add("entry without a videoID", f"{entry!r:.40} ({path.name}: entry {n})")
