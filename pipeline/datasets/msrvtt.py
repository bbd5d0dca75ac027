"""MSR-VTT: 10,000 clips with 20 captions each; the splits 9k and 7k (test 1k-A), full, and 1k-B.

Captions in either published layout (`sentences`, or `annotations` of frozen-in-time); a split is a
csv with the column video_id (and `sentence` where one caption per video is ranked), a list of ids,
or the fork's sentence_dict.json.
Source: docs/specs/datasets.md, section 2.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import (
    caption_text,
    expect_columns,
    read_ids,
    read_json,
    read_table,
)
from pipeline.datasets.parts.benchmark import (
    AnnotationFile,
    Benchmark,
    Collector,
    first_existing,
    with_captions,
)

_ONE_CAPTION = "MSRVTT_JSFUSION_test.csv"
_LISTS = {
    "9k": {"train": "MSRVTT_train.9k.csv", "val": _ONE_CAPTION, "test": _ONE_CAPTION},
    "7k": {"train": "MSRVTT_train.7k.csv", "val": _ONE_CAPTION, "test": _ONE_CAPTION},
    "full": {
        "train": "MSRVTT_train.full.csv",
        "val": "MSRVTT_val.full.csv",
        "test": "MSRVTT_test.full.csv",
    },
    "1k-B": {
        "train": "train_list_miech.txt",
        "val": "test_list_miech.txt",
        "test": "test_list_miech.txt",
    },
}
_PUBLISHED = {
    "9k": {"train": (9000, 180_000), "val": (1000, 1000), "test": (1000, 1000)},
    "7k": {"train": (7010, 140_200), "val": (1000, 1000), "test": (1000, 1000)},
    "full": {"train": (6513, 130_260), "val": (497, 9940), "test": (2990, 59_800)},
    "1k-B": {"train": (6656, None), "val": (1000, 1000), "test": (1000, 1000)},
}
_OFFICIAL = ("train_val_videodatainfo.json", "test_videodatainfo.json")  # of the challenge
_CAPTION_FILES = ("MSRVTT_data.json", "MSR_VTT.json", "annotation/MSR_VTT.json")
_SENTENCES = "captions of MSR-VTT (sentences)"
_ANNOTATIONS = "captions of MSR-VTT (annotations)"
_FORK = "sentences of the DRL fork (sentence_dict)"
_CAPTIONS = (
    "captions of all videos; MSR_VTT.json or annotation/MSR_VTT.json of MSRVTT.zip, or both"
    f" {_OFFICIAL[0]} and {_OFFICIAL[1]}, will do as well"
)
_ZIP = (
    "msrvtt_data.zip, https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip"
)
_MIECH = "albanie/collaborative-experts: misc/datasets/msrvtt/"
_EMCL = "jpthu17/EMCL: video_retrieval/As_an_inference_module/data/msrvtt_data/"
_SOURCES = {"full": _EMCL, "1k-B": _MIECH}
Text = tuple[str, str]  # video id, caption


class Options(benchmark.Options):
    split: Literal["9k", "7k", "full", "1k-B"] = Field(
        "9k",
        description=(
            "which lists: 9k and 7k are tested on 1k-A; full and its test have 20 captions per"
            " video"
        ),
    )
    captions: Path | None = Field(
        None, description="caption file [MSRVTT_data.json, else MSR_VTT.json]"
    )
    train: Path | None = Field(
        None, description="list of another file for this split: .csv, .txt or sentence_dict .json"
    )
    val: Path | None = Field(
        None, description="the same for val (published: val is the test list, except full)"
    )
    test: Path | None = Field(None, description="the same for test")
    test_captions: Literal["first", "all"] = Field(
        "first",
        description=(
            "1k-B: captions ranked per test video (the published choice of one is not recorded)"
        ),
    )


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = (
        "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip (folder videos/all)"
    )
    example: ClassVar[str] = "video7020"

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        lists, options = _LISTS[self.options.split], self.options
        published = _PUBLISHED[options.split].items()
        return {
            s: n for s, n in published if (getattr(options, s) or Path(lists[s])).name == lists[s]
        }

    def files(self) -> dict[str, AnnotationFile]:
        options = self.options
        root, name = options.root, options.captions
        path = root / name if name else first_existing(root, _CAPTION_FILES, _CAPTION_FILES[0])
        source = f"{_ZIP}, or {self.video_source.split()[0]}"
        files = {"captions": AnnotationFile(path, _CAPTIONS, source)}
        if not name and not path.is_file() and (root / _OFFICIAL[0]).is_file():
            official = zip(("captions", "captions of test"), _OFFICIAL, strict=True)
            files = {role: AnnotationFile(root / file, role, source) for role, file in official}
        for split, name in _LISTS[options.split].items():
            source = _SOURCES.get(options.split, _ZIP)
            files[split] = AnnotationFile(
                root / (getattr(options, split) or name), f"list of {split}", source
            )
        return files

    def dispensable(self) -> set[str]:
        """Captions and the training list, where both are missing and the test list brings its own
        sentences: who only ranks needs no more than that list.
        """
        files = self.files()
        roles = {role for role in files if role not in ("val", "test")}
        is_alone = not any(files[role].path.is_file() for role in roles)
        test = files["test"].path
        if not (is_alone and test == files["val"].path and test.is_file()):
            return set()
        return roles if _own_texts(test, Faults(self.options.root)) is not None else set()

    def read(self, faults: Faults) -> Annotations:
        files, collector = self.files(), Collector()
        for role in self.dispensable():
            collector.note(f"{files.pop(role).path.name} is not there: only the test list is read")
        captions: list[Text] = []
        for role in ("captions", "captions of test"):
            if role in files:
                texts, layout = _read_captions(files[role].path, faults)
                collector.note(f"{files[role].path.name}: {layout}, {len(texts):,} captions")
                captions += texts
        known = {video_id for video_id, _ in captions}
        for split in [split for split in ("train", "val", "test") if split in files]:
            path = files[split].path
            texts = _own_texts(path, faults)
            if texts is None:
                ids = set(with_captions(read_list(path, faults), known, path.name, [], faults))
                texts = [pair for pair in captions if pair[0] in ids]
                if (
                    self.options.split == "1k-B"
                    and split != "train"
                    and self.options.test_captions == "first"
                ):
                    texts = list(
                        {video_id: (video_id, text) for video_id, text in reversed(texts)}.values()
                    )[::-1]
            collector.add(split, texts)
        return collector.annotations


def _read_captions(path: Path, faults: Faults) -> tuple[list[Text], str]:
    """Return (video id, caption) of all captions in file order, and the layout they were in."""
    layout, value = read_json(path, _SENTENCES, _ANNOTATIONS)
    entries, key = (
        (value["sentences"], "video_id")
        if layout == _SENTENCES
        else (value["annotations"], "image_id")
    )
    texts: list[Text] = []
    safe: set[str] = set()
    for n, entry in enumerate(entries):
        where = f"{path.name}: entry {n}"
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get(key), str)
            or "caption" not in entry
        ):
            faults.add(f"entry without {key} and caption", f"{entry!r:.60} ({where})")
            continue
        video_id = entry[key]
        if video_id not in safe and faults.check_id(video_id, where):
            safe.add(video_id)
        texts.append((video_id, caption_text(entry["caption"], where, faults)))
    return texts, layout


def read_list(path: Path, faults: Faults) -> list[str]:
    """Video ids of a split, in file order."""
    if path.suffix != ".csv":
        return read_ids(path, faults)
    columns, rows = read_table(path, faults)
    expect_columns(path, columns, "video_id")
    return _checked(((where, row["video_id"]) for where, row in rows), faults, repeats=False)


def _own_texts(path: Path, faults: Faults) -> list[Text] | None:
    """Return the captions that a split file brings itself, else None."""
    if path.suffix == ".json":
        layout, value = read_json(path, _FORK, "a list of ids")
        return _fork_texts(path, value, faults) if layout == _FORK else None
    if path.suffix != ".csv":
        return None
    columns, rows = read_table(path, faults)
    if "sentence" not in columns:
        return None
    expect_columns(path, columns, "video_id")
    _checked(((where, row["video_id"]) for where, row in rows), faults, repeats=True)
    if "key" in columns:
        _expect_distinct([(where, row["key"]) for where, row in rows], faults)
    return [(row["video_id"], caption_text(row["sentence"], where, faults)) for where, row in rows]


def _fork_texts(path: Path, value: dict, faults: Faults) -> list[Text]:
    """Captions of a sentence_dict.json: {"0": [video id, [caption, start, end]], ...}."""
    texts = []
    for key, entry in value.items():
        where = f"{path.name}: {key!r}"
        match entry:
            case [str(video_id), [caption, *_]]:
                faults.check_id(video_id, where)
                texts.append((video_id, caption_text(caption, where, faults)))
            case _:
                faults.add(
                    "entry that is not [video id, [caption, start, end]]",
                    f"{entry!r:.60} ({where})",
                )
    return texts


def _checked(pairs: Iterable[tuple[str, str]], faults: Faults, repeats: bool) -> list[str]:
    ids: dict[str, None] = {}
    for where, video_id in pairs:
        if video_id in ids and not repeats:
            faults.add("id that stands in a list twice", f"{video_id!r} ({where})")
        elif video_id not in ids:
            faults.check_id(video_id, where)
        ids[video_id] = None
    return list(ids)


def _expect_distinct(pairs: list[tuple[str, str]], faults: Faults) -> None:
    seen: set[str] = set()
    for where, key in pairs:
        if key in seen:
            faults.add("key that occurs twice", f"{key!r} ({where})")
        seen.add(key)
