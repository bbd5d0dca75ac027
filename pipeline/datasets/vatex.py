"""VATEX, English: 28,991 clips with 10 captions each; every caption is a query.

Captions as DGL has them (ref_captions.json) or as EMCL has them (vatex_data.json, key enCap). DGL validates on the test
list (`val: test_list.txt`). Source: shared/specs/datasets.md section 7.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from pipeline.datasets import benchmark
from pipeline.datasets.annotation_files import caption_text, read_ids, read_json
from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.benchmark import AnnotationFile, Benchmark, Collector, first_existing, with_captions

_CAPTION_FILES = ("ref_captions.json", "vatex_data.json")
_DGL, _EMCL = "lists of captions by video", "captions of VATEX (enCap)"
_SOURCE = "jpthu17/EMCL: video_retrieval/As_an_inference_module/data/vatex_data/, or knightyxp/DGL"
_PUBLISHED = {
    "train_list.txt": (25_991, 259_910),
    "val_list.txt": (1500, 15_000),
    "test_list.txt": (1500, 15_000),
    "test1k5_sec_list.txt": (1500, 15_000),
}


class Options(benchmark.Options):
    captions: Path | None = Field(None, description="caption file [ref_captions.json, else vatex_data.json]")
    train: Path = Field(Path("train_list.txt"), description="ids to train on")
    val: Path = Field(Path("val_list.txt"), description="ids to choose the best epoch on (DGL: test_list.txt)")
    test: Path = Field(Path("test_list.txt"), description="ids of the final ranking")


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = "https://eric-xw.github.io/vatex-website/download.html (YouTube clips)"

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        lists = {split: getattr(self.options, split).name for split in ("train", "val", "test")}
        return {split: _PUBLISHED[name] for split, name in lists.items() if name in _PUBLISHED}

    def files(self) -> dict[str, AnnotationFile]:
        options = self.options
        root, name = options.root, options.captions
        path = root / name if name else first_existing(root, _CAPTION_FILES, _CAPTION_FILES[0])
        files = {"captions": AnnotationFile(path, "captions of all videos", _SOURCE)}
        for split in ("train", "val", "test"):
            files[split] = AnnotationFile(root / getattr(options, split), f"list of {split}", _SOURCE)
        return files

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        captions, layout = _read_captions(files["captions"].path, faults)
        collector.note(f"{files['captions'].path.name}: {layout}")
        for split in ("train", "val", "test"):
            path = files[split].path
            ids = with_captions(read_ids(path, faults), captions, path.name, [], faults)
            collector.add(split, ((video_id, text) for video_id in ids for text in captions[video_id]))
        return collector.annotations


def _read_captions(path: Path, faults: Faults) -> tuple[dict[str, list[str]], str]:
    """{video id: English captions}, and the layout they were in."""
    layout, value = read_json(path, _DGL, _EMCL)
    captions: dict[str, list[str]] = {}
    for video_id, entry in value.items():
        where = f"{path.name}: {video_id!r:.40}"
        texts = entry.get("enCap") if isinstance(entry, dict) else entry
        if not isinstance(texts, list) or not texts:
            faults.add("video without a list of captions", where)
        else:
            captions[video_id] = [caption_text(text, where, faults) for text in texts]
    return captions, layout
