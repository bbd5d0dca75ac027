"""Your own videos: a folder of files and their captions in a table, JSON lines, JSON or plain text.

Captions are looked for as captions.csv, .tsv, .jsonl, .json or .txt in the folder, else as a text
file beside each video (clip.txt beside clip.mp4, a caption per line). A caption names its video by
file name or by path below the folder, with or without suffix. Splits come from a column `split`,
else from the video's id.
"""

import hashlib
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, model_validator

from pipeline.core.files import file_digest
from pipeline.core.state import digest
from pipeline.datasets import base
from pipeline.datasets.base import SAFE_ID, Annotations, Caption, ExpectedFile, Faults, Split, Video
from pipeline.datasets.parts.folder_captions import (
    FORMATS,
    SPLITS,
    Reading,
    Spoken,
    side_file,
    side_texts,
)
from pipeline.datasets.parts.sources import list_folder
from pipeline.datasets.parts.video_marks import VIDEO_SUFFIXES
from pipeline.errors import DataError

_NAMES = ("captions.csv", "captions.tsv", "captions.jsonl", "captions.json", "captions.txt")


class Options(BaseModel, extra="forbid"):
    root: Path = Field(description="folder of the videos, sub-folders included")
    captions: Path | None = Field(
        None,
        description=(
            "caption file, relative to root [captions.csv, .tsv, .jsonl, .json, .txt; else clip.txt"
            " files]"
        ),
    )
    captions_only: bool = Field(
        False,
        description=(
            "look for no videos: they are called as the captions call them, without their suffix"
        ),
    )
    video_column: str | None = Field(
        None, description="column or key that names the video [video_id, file, path, ...]"
    )
    caption_column: str | None = Field(
        None, description="column or key of the caption [caption, sentence, text, ...]"
    )
    split_column: str = Field(
        "split", description="column or key with train, val or test, where there is one"
    )
    encoding: str = Field(
        "utf-8", description="of the caption files, e.g. windows-1252, utf-16, gb18030"
    )
    val: float = Field(
        0.1, ge=0, le=1, description="share of the videos for val, where no column says it"
    )
    test: float = Field(
        0.1, ge=0, le=1, description="share of the videos for test, where no column says it"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Options":
        if self.val + self.test > 1:
            raise ValueError("val and test together are more than all videos")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(
                f"encoding {self.encoding!r} is unknown; try utf-8, utf-16 or windows-1252"
            ) from None
        return self


class Dataset(base.Dataset):
    Options: ClassVar[type[BaseModel]] = Options
    # where the files lie is not part of what they say, nor is the name of the caption file: its
    # content counts
    indifferent: ClassVar[frozenset[str]] = frozenset({"root", "captions"})

    def load(self) -> Annotations:
        root, faults = self.options.root, Faults(self.options.root)
        paths = self._videos()
        names = _names(root, paths)
        spoken, notes = self._spoken(paths, faults)
        videos = {video_id: Video(video_id, path) for video_id, path in paths.items()}
        captions: dict[str, Caption] = {}
        splits: dict[str, str] = {}
        counts: dict[str, int] = {}
        for found in spoken:
            video_id = _video_id(found, names, faults)
            if video_id is None:
                continue
            videos.setdefault(video_id, Video(video_id))
            if splits.setdefault(video_id, found.split) != found.split:
                faults.add("video in two splits", f"{found.video!r} ({found.where})")
            number = counts[video_id] = counts.get(video_id, -1) + 1
            captions[f"{video_id}#{number}"] = Caption(f"{video_id}#{number}", video_id, found.text)
        if not captions and not faults:
            faults.add("folder without a caption", str(root))
        faults.raise_if_any()
        notes += [] if self.options.captions_only else _notes(videos, counts)
        return Annotations(
            videos, captions, _split(captions, _assigned(splits, self.options)), notes
        )

    def digest(self) -> str:
        return digest(
            [file_digest(path) for path in self._caption_files()] or self._side_texts_digest()
        )

    def expected_files(self) -> list[ExpectedFile]:
        root, own = self.options.root, "your own"
        paths = dict(list_folder(root)) if root.is_dir() else {}
        names = [self.options.captions] if self.options.captions else _NAMES
        beside = [] if self.options.captions else map(side_file, paths.values())
        there = any(path.is_file() for path in [*(root / name for name in names), *beside])
        wanted = root / (self.options.captions or "captions.csv")
        what = "captions: also .tsv, .jsonl, .json, .txt, or <video>.txt beside each video"
        return [
            ExpectedFile(wanted, "annotations", what, own, int(there)),
            ExpectedFile(
                root / "<video>.mp4", "video_files", "the videos, any suffix", own, len(paths), None
            ),
        ]

    def _videos(self) -> dict[str, Path]:
        root = self.options.root
        if not root.is_dir():
            raise DataError(
                "there is no such folder",
                where=root,
                fix="Set `root` to the folder that holds your videos.",
            )
        return {} if self.options.captions_only else dict(list_folder(root))

    def _caption_files(self) -> list[Path]:
        """The caption file, if there is one. DataError if one is named and missing, or several lie
        there.
        """
        root, options = self.options.root, self.options
        if options.captions:
            if not (root / options.captions).is_file():
                raise DataError(
                    "there is no such file", where=root / options.captions, fix="Check `captions`."
                )
            return [root / options.captions]
        there = [root / name for name in _NAMES if (root / name).is_file()]
        if len(there) > 1:
            names = ", ".join(path.name for path in there)
            raise DataError(
                f"several caption files: {names}", where=root, fix="Say which with `captions`."
            )
        return there

    def _spoken(self, paths: dict[str, Path], faults: Faults) -> tuple[list[Spoken], list[str]]:
        files = self._caption_files()
        if files:
            suffix = files[0].suffix.lower()
            if suffix not in FORMATS:
                what = f"captions in a {suffix or 'file without suffix'}"
                raise DataError(
                    what, where=files[0], fix=f"Save them as one of {', '.join(FORMATS)}."
                )
            reading = Reading(files[0], self.options, faults)
            return list(FORMATS[suffix](reading)), reading.notes
        return list(side_texts(paths, self.options, faults)), [
            "captions from a text file beside each video"
        ]

    def _side_texts_digest(self) -> list[str]:
        texts = [(i, side_file(path)) for i, path in self._videos().items()]
        return [f"{video_id}:{file_digest(path)}" for video_id, path in texts if path.is_file()]


def _names(root: Path, paths: dict[str, Path]) -> dict[str, list[str]]:
    """Ids by every name a person may use for a video: id and path, which nobody else has; else file
    name and stem.
    """
    exact = {name: [i] for i, path in paths.items() for name in (i, str(path.relative_to(root)))}
    names: dict[str, dict[str, None]] = {}
    for video_id, path in paths.items():
        for name in (path.name, path.stem):
            names.setdefault(name, {})[video_id] = None
    return {name: list(ids) for name, ids in names.items()} | exact


def _video_id(found: Spoken, names: dict[str, list[str]], faults: Faults) -> str | None:
    """The id of the video a caption names. A video that is not there keeps a safe name, to be
    missed later.
    """
    name = found.video.removeprefix("./").replace("\\", "/")
    ids = names.get(name, [])
    if len(ids) == 1:
        return ids[0]
    if ids:
        faults.add(
            "name that several videos have",
            f"{found.video!r}: {', '.join(ids[:3])} ({found.where})",
        )
    elif not SAFE_ID.fullmatch(name) or name in (".", ".."):
        faults.add("video that is not in the folder", f"{found.video[:80]!r} ({found.where})")
    else:
        path = Path(name)
        return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else name
    return None


def _assigned(splits: dict[str, str], options: Options) -> dict[str, str]:
    """{video id: split}. Without a column, an id's place on the line from 0 to 1 decides: videos
    may be added without moving others. A share that would be empty gets the video next to it.
    """
    if any(splits.values()):
        return {video_id: split or "train" for video_id, split in splits.items()}
    places = {
        i: int.from_bytes(hashlib.sha256(i.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64
        for i in splits
    }
    made = {
        i: (
            "test"
            if place < options.test
            else "val"
            if place < options.test + options.val
            else "train"
        )
        for i, place in places.items()
    }
    for split, share in (("test", options.test), ("val", options.val)):
        rest = sorted((i for i in made if made[i] == "train"), key=places.__getitem__)
        if share and split not in made.values() and len(rest) > 1:
            made[rest[0]] = split
    return made


def _split(captions: dict[str, Caption], assigned: dict[str, str]) -> dict[str, Split]:
    made = {split: Split([], []) for split in SPLITS if split in assigned.values()}
    galleries: dict[str, dict[str, None]] = {split: {} for split in made}
    for caption in captions.values():
        split = assigned[caption.video_id]
        made[split].caption_ids.append(caption.id)
        galleries[split][caption.video_id] = None
    return {split: Split(part.caption_ids, list(galleries[split])) for split, part in made.items()}


def _notes(videos: dict[str, Video], counts: dict[str, int]) -> list[str]:
    silent = [i for i in videos if i not in counts]
    missing = [i for i, video in videos.items() if video.path is None]
    lines = [("videos have no caption", silent), ("captioned videos have no file", missing)]
    return [
        f"{len(ids):,} {what}: {', '.join(ids[:3])}{', ...' * (len(ids) > 3)}"
        for what, ids in lines
        if ids
    ]
