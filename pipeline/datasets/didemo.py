"""DiDeMo, a paragraph per video: its descriptions joined; the first 31 seconds of each file.

A list names files, suffix included; descriptions of files that are not listed do not count, and
listed files without descriptions are skipped. Items stand in order of first appearance in the JSON.
Source: docs/specs/datasets.md, section 6.
"""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline.datasets.base import Annotations, Faults, Video
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import caption_text, read_ids, read_json
from pipeline.datasets.parts.benchmark import AnnotationFile, Benchmark, Collector, with_captions

_LISTS = "albanie/collaborative-experts: misc/datasets/didemo/"
_DATA = "LisaAnne/LocalizingMoments: data/"
_MISSING = (
    "37996615073@N01_3336195519_579ea4136c.3gp",
    "44124421772@N01_2867159874_e39e716b7e.mpg",
    "59627558@N00_4659075184_253744838b.3gp",
)


class Options(benchmark.Options):
    train: Path = Field(Path("train_data.json"), description="descriptions of the training videos")
    val: Path = Field(Path("val_data.json"), description="descriptions of the validation videos")
    test: Path = Field(Path("test_data.json"), description="descriptions of the test videos")
    train_list: Path = Field(Path("train_list.txt"), description="file names to train on")
    val_list: Path = Field(
        Path("val_list.txt"), description="file names to choose the best epoch on"
    )
    test_list: Path = Field(Path("test_list.txt"), description="file names of the final ranking")
    file_names: Literal["either", "exact", "reencoded"] = Field(
        "either",
        description=(
            "files are called as listed (exact: CLIP4Clip), with a suffix appended, x.3gp.mp4"
            " (reencoded: DiffusionRet, HBI), or as listed or with .mp4 appended (either:"
            " CenterCLIP, DGL)"
        ),
    )
    seconds: float = Field(
        31, gt=0, description="what counts of each video (annotators saw 30 seconds)"
    )
    words: int = Field(64, ge=3, description="tokens of a paragraph in the published protocol")
    frames: int = Field(64, ge=1, description="frames of a video in the published protocol")


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = (
        "LisaAnne/LocalizingMoments: README.md, Getting the Videos (YFCC100M)"
    )
    example: ClassVar[str] = "100233434@N08_9622921646_c39ac10ea3.mp4"
    excluded: ClassVar[dict[str, tuple[str, ...]]] = {"centerclip": _MISSING, "dgl": _MISSING}

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        counts = {"train": 8389 if self.options.exclude else 8392, "val": 1065, "test": 1004}
        return {s: (n, n) for s, n in counts.items() if self.has_published(s, f"{s}_list")}

    def file_names(self, video_id: str) -> list[str]:
        names = {"exact": [video_id], "either": [video_id, f"{video_id}.mp4"], "reencoded": []}
        return names[self.options.file_names]

    @property
    def file_pattern(self) -> str:
        return "<listed name>.mp4" if self.options.file_names == "reencoded" else "<listed name>"

    def files(self) -> dict[str, AnnotationFile]:
        root, files = self.options.root, {}
        for split in ("train", "val", "test"):
            listed, data = getattr(self.options, f"{split}_list"), getattr(self.options, split)
            files[f"{split}_list"] = AnnotationFile(root / listed, f"file names of {split}", _LISTS)
            files[split] = AnnotationFile(root / data, f"descriptions of {split}", _DATA)
        return files

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        for split in ("train", "val", "test"):
            path = files[f"{split}_list"].path
            listed, texts = read_ids(path, faults), _read_descriptions(files[split].path, faults)
            notes = collector.annotations.notes
            kept = set(with_captions(listed, texts, path.name, notes, faults, tolerate=True))
            order = [name for name in texts if name in kept]
            videos = {
                name: Video(name, start=0.0, end=float(self.options.seconds)) for name in order
            }
            collector.add(split, ((name, " ".join(texts[name])) for name in order), videos)
            count = sum(len(texts[name]) for name in order)
            collector.note(f"{split}: {len(order):,} paragraphs of {count:,} descriptions")
        return collector.annotations


def _read_descriptions(path: Path, faults: Faults) -> dict[str, list[str]]:
    """Return {file name: descriptions in file order}, in order of first appearance."""
    texts: dict[str, list[str]] = {}
    seen: set[object] = set()
    for n, entry in enumerate(read_json(path, "captions of DiDeMo")[1]):
        where = f"{path.name}: entry {n}"
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("video"), str)
            or "description" not in entry
        ):
            faults.add("entry without video and description", f"{entry!r:.60} ({where})")
            continue
        number = entry.get("annotation_id")
        if isinstance(number, int) and number in seen:
            faults.add("annotation_id that occurs twice", f"{number} ({where})")
        seen.add(number if isinstance(number, int) else None)
        texts.setdefault(entry["video"], []).append(
            caption_text(entry["description"], where, faults)
        )
    return texts
