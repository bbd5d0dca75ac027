"""Your own videos: a folder of files and their captions in a table, JSON lines, JSON or plain text.

Captions are looked for as captions.csv, .tsv, .jsonl, .json or .txt in the folder, else as
metadata.csv or .jsonl, annotations.csv, .tsv, .jsonl or .json, AllVideoDescriptions.txt, else as a
text file beside each video (clip.txt beside clip.mp4, a caption per line). A caption names its
video by file name or by path (pipeline/datasets/parts/video_names.py). Splits come from a column
`split`, else from the name of the file, else from the video's id.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from pipeline import log
from pipeline.core.files import file_digest
from pipeline.core.state import digest
from pipeline.datasets import base
from pipeline.datasets.base import Annotations, Caption, ExpectedFile, Faults, Split, Video
from pipeline.datasets.parts.caption_columns import SPLITS
from pipeline.datasets.parts.folder_captions import (
    FORMATS,
    FolderReading,
    Spoken,
    side_file,
    side_texts,
)
from pipeline.datasets.parts.listing import CAPTION_FILES
from pipeline.datasets.parts.own_splits import assign, grouped, parted
from pipeline.datasets.parts.sources import list_folder
from pipeline.datasets.parts.video_marks import is_video_name
from pipeline.datasets.parts.video_names import VideoNames, missing_id
from pipeline.errors import DataError
from pipeline.video.moment import moment_id

_NAMES, _OTHER_NAMES = CAPTION_FILES[:5], CAPTION_FILES[5:]  # the others where there is none
_FEW = 0.05  # share of bad rows that is left out with a warning, as of failed videos
_WHAT_WOULD_DO = (
    "Captions are a file captions.csv, .tsv, .jsonl, .json or .txt in the folder (or metadata.csv,"
    " metadata.jsonl, annotations.json, AllVideoDescriptions.txt), whose table begins with the line"
    " `video,caption`; or a text file beside each video, clip.txt beside clip.mp4. See"
    " docs/datasets.md."
)


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
        "split",
        description=(
            "column or key with train, val or test [split, subset, set, partition, in any case]"
        ),
    )
    group_column: str | None = Field(
        None,
        description=(
            "column or key of the film that a clip is cut from: a drawn split keeps clips of one"
            " film together [group, film, movie]"
        ),
    )
    group_pattern: str | None = Field(
        None, description="regular expression that finds the film in a video's id, e.g. ^[^_]+"
    )
    bad_rows: Literal["few", "drop", "refuse"] = Field(
        "few",
        description=(
            "rows without a caption, video or known split: drop leaves them out with a count,"
            " refuse stops, few leaves out up to 5 % and stops at more"
        ),
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
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ValueError(f"group_pattern is not a regular expression: {error}") from None
        return self


class Dataset(base.Dataset):
    Options: ClassVar[type[BaseModel]] = Options
    letters: ClassVar[Literal["ascii", "unicode"]] = "unicode"
    # where the files lie is not part of what they say, nor is the name of the caption file: its
    # content counts
    indifferent: ClassVar[frozenset[str]] = frozenset({"root", "captions"})

    def load(self) -> Annotations:
        options, faults, bad = self.options, Faults(self.options.root), Faults(self.options.root)
        paths = self._videos()
        names = VideoNames(options.root, paths)
        spoken, notes = self._spoken(names, paths, faults, bad)
        made = _Made(paths, names, bad)
        for found in spoken:
            made.add(found, faults)
        self._judge(len(made.captions), faults, bad, notes)
        groups = made.groups | grouped(made.splits, options.group_pattern)
        file = self._file_name()
        assigned = assign(made.splits, groups, (options.val, options.test), file)
        notes += [] if options.captions_only else made.notes()
        notes += parted(assigned.split_of, groups)
        splits = _split(made.captions, assigned.split_of)
        return Annotations(made.list_videos(), made.captions, splits, notes, assigned.how)

    def digest(self) -> str:
        return digest(
            [file_digest(path) for path in self._caption_files()] or self._side_texts_digest()
        )

    def expected_files(self) -> list[ExpectedFile]:
        root, own = self.options.root, "your own"
        paths = dict(list_folder(root)) if root.is_dir() else {}
        names = [self.options.captions] if self.options.captions else [*_NAMES, *_OTHER_NAMES]
        beside = [] if self.options.captions else map(side_file, paths.values())
        there = any(path.is_file() for path in [*(root / name for name in names), *beside])
        wanted = root / (self.options.captions or "captions.csv")
        what = "captions: also .tsv, .jsonl, .json, .txt, or <video>.txt beside each video"
        return [
            ExpectedFile(wanted, "annotations", what, own, int(there)),
            ExpectedFile(
                path=root / "<video>.mp4",
                kind="video_files",
                what="the videos, any suffix",
                source=own,
                found=len(paths),
                wanted=None,
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
        """Return the caption file, if there is one. DataError if one is named and missing, or
        several lie there.
        """
        root, options = self.options.root, self.options
        if options.captions:
            if not (root / options.captions).is_file():
                raise DataError(
                    "there is no such file", where=root / options.captions, fix="Check `captions`."
                )
            return [root / options.captions]
        there = _present(root, _NAMES) or _present(root, _OTHER_NAMES)
        if len(there) > 1:
            names = ", ".join(path.name for path in there)
            raise DataError(
                f"several caption files: {names}", where=root, fix="Say which with `captions`."
            )
        return there

    def _file_name(self) -> str:
        files = self._caption_files()
        return files[0].name if files else ""

    def _spoken(
        self, names: VideoNames, paths: dict[str, Path], faults: Faults, bad: Faults
    ) -> tuple[list[Spoken], list[str]]:
        files = self._caption_files()
        if not files:
            spoken = list(side_texts(paths, self.options, bad))
            return spoken, ["captions from a text file beside each video"]
        suffix = files[0].suffix.lower()
        if suffix not in FORMATS:
            raise DataError(
                f"captions in a {suffix or 'file without suffix'}",
                where=files[0],
                fix=f"Save them as one of {', '.join(FORMATS)}.",
            )
        known = is_video_name if self.options.captions_only else lambda n: bool(names.find(n))
        reading = FolderReading(files[0], self.options, faults, bad, known)
        return list(FORMATS[suffix](reading)), reading.notes

    def _judge(self, n_good: int, faults: Faults, bad: Faults, notes: list[str]) -> None:
        """Leave bad rows out, counted, or raise with every fault."""
        policy = self.options.bad_rows
        share = len(bad) / (n_good + len(bad)) if bad else 0.0
        if bad and (policy == "refuse" or (policy == "few" and share > _FEW)):
            faults.take(bad)
            faults.raise_if_any(
                "Correct the file and run the same command again; or leave such rows out, with a"
                " count: `bad_rows: drop` (docs/datasets.md)."
            )
        faults.raise_if_any()
        if not n_good:
            faults.add("folder without a caption", str(self.options.root))
            faults.raise_if_any(_WHAT_WOULD_DO)
        if bad:
            rows = "row is" if len(bad) == 1 else "rows are"
            notes.append(f"{len(bad):,} bad {rows} left out: {'; '.join(bad.lines)}")

    def _side_texts_digest(self) -> list[str]:
        texts = [(i, side_file(path)) for i, path in self._videos().items()]
        return [f"{video_id}:{file_digest(path)}" for video_id, path in texts if path.is_file()]


class _Made:
    """Videos and captions as they are put together. splits: {video id: as said, or ""}. groups:
    {video id: the film it is cut from}, where that is known.
    """

    def __init__(self, paths: dict[str, Path], names: VideoNames, bad: Faults):
        self._names, self._bad = names, bad
        self.videos = {video_id: Video(video_id, path) for video_id, path in paths.items()}
        self.captions: dict[str, Caption] = {}
        self.splits: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._films: set[str] = set()  # of which only moments count

    def add(self, found: Spoken, faults: Faults) -> None:
        film = self._film(found, faults)
        if film is None:
            return
        video_id = film
        if found.moment:
            video_id = moment_id(film, found.moment)
            self._films.add(film)
            self.groups[video_id] = film
            path = self.videos[film].path if film in self.videos else None
            moment = found.moment
            self.videos.setdefault(video_id, Video(video_id, path, moment.start, moment.end))
        self.videos.setdefault(video_id, Video(video_id))
        if found.group:
            self.groups[video_id] = found.group
        if self.splits.setdefault(video_id, found.split) != found.split:
            faults.add("video in two splits", f"{found.video!r} ({found.where})")
        number = self._counts[video_id] = self._counts.get(video_id, -1) + 1
        caption_id = f"{video_id}#{number}"
        self.captions[caption_id] = Caption(caption_id, video_id, found.text)

    def list_videos(self) -> dict[str, Video]:
        """Return all videos but the films that captions name only by their moments."""
        hidden = self._films - self._counts.keys()
        return {i: video for i, video in self.videos.items() if i not in hidden}

    def notes(self) -> list[str]:
        videos = self.list_videos()
        silent = [i for i in videos if i not in self._counts]
        missing = [i for i, video in videos.items() if video.path is None]
        moments = sum(video.start is not None for video in videos.values())
        lines = [("videos have no caption", silent), ("captioned videos have no file", missing)]
        notes = [f"{len(ids):,} {what}: {self._some(ids)}" for what, ids in lines if ids]
        if moments:
            notes.append(f"{moments:,} moments of {len(self._films):,} films, a video each")
        return notes

    def _some(self, ids: list[str]) -> str:
        examples = []
        for video_id in ids[:3]:
            near = None if self.videos[video_id].path else self._names.nearest(video_id)
            examples.append(log.plain(video_id) + (f" (is it {log.plain(near)}?)" if near else ""))
        return ", ".join(examples) + ", ..." * (len(ids) > 3)

    def _film(self, found: Spoken, faults: Faults) -> str | None:
        """Return the id of the video a caption names. A video that is not there keeps its name, to
        be missed later.
        """
        ids = self._names.find(found.video)
        if len(ids) == 1:
            return ids[0]
        if ids:
            several = ", ".join(map(log.plain, ids[:3]))
            what = f"{found.video!r}: {several} ({found.where})"
            faults.add("name that several videos have", what)
            return None
        missing = missing_id(found.video)
        if missing is None:
            where = f"{found.video[:80]!r} ({found.where})"
            faults.add("video that is not in the folder", where)
        return missing


def _present(root: Path, names: Iterable[str]) -> list[Path]:
    return [root / name for name in names if (root / name).is_file()]


def _split(captions: dict[str, Caption], assigned: dict[str, str]) -> dict[str, Split]:
    made = {split: Split([], []) for split in SPLITS if split in assigned.values()}
    galleries: dict[str, dict[str, None]] = {split: {} for split in made}
    for caption in captions.values():
        split = assigned[caption.video_id]
        made[split].caption_ids.append(caption.id)
        galleries[split][caption.video_id] = None
    return {split: Split(part.caption_ids, list(galleries[split])) for split, part in made.items()}
