"""What the six published data sets share: lists of the files they need, video files by id,
exclusions, digests.

A reader says which files it reads (`files`), what is in them (`read`), and which names a video's
file may have (`file_names`); everything else is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline.core.files import file_digest
from pipeline.core.state import digest
from pipeline.datasets import base
from pipeline.datasets.base import Annotations, Caption, ExpectedFile, Faults, Split, Video
from pipeline.datasets.parts import video_files
from pipeline.datasets.parts.annotation_files import read_ids
from pipeline.errors import DataError

_MOST_UNKNOWN = (
    0.05  # share of the ids of a list that may have no captions where the published files have such
)


@dataclass(frozen=True)
class AnnotationFile:
    """A file a reader needs: where it is looked for, what it holds, where to get it."""

    path: Path
    what: str
    source: str


class Options(BaseModel, extra="forbid"):
    root: Path = Field(description="folder of the annotation files")
    videos: Path = Field(Path("videos"), description="folder of the video files, relative to root")
    video_paths: Path | None = Field(
        None,
        description=(
            "JSON {id: path below videos}: video_path.json (CenterCLIP, DGL) or video_dict.json"
            " (DRL fork)"
        ),
    )
    only_listed: bool = Field(
        False, description="leave out videos that video_paths does not name (CenterCLIP, DGL)"
    )
    missing: Literal["report", "drop"] = Field(
        "report",
        description=(
            "a video without file: reported as failed in the step that reads it, or dropped with"
            " its captions, which makes the gallery smaller (published for LSMDC, ActivityNet,"
            " DiDeMo)"
        ),
    )
    exclude: list[str] = Field(
        [], description="video ids to leave out, or the names of published lists"
    )
    words: int = Field(
        32, ge=3, description="tokens of a text in the published protocol, both ends included"
    )
    frames: int = Field(12, ge=1, description="frames of a video in the published protocol")


class Benchmark(base.Dataset, ABC):
    """Base of the readers of published data sets. excluded: {name: ids} of published lists of clips
    left out.
    """

    Options: ClassVar[type[BaseModel]] = Options
    indifferent: ClassVar[frozenset[str]] = frozenset({"root", "videos", "words", "frames"})
    excluded: ClassVar[dict[str, tuple[str, ...]]] = {}
    video_source: ClassVar[str]  # where to get the videos
    example: ClassVar[str]  # id of one of them
    suffix: ClassVar[str] = (
        ".mp4"  # that their files have where they are published; any other will do
    )

    @abstractmethod
    def files(self) -> dict[str, AnnotationFile]:
        """Return the annotation files by role."""

    @abstractmethod
    def read(self, faults: Faults) -> Annotations:
        """Return what the files say; videos without paths."""

    def dispensable(self) -> set[str]:
        """Roles of missing files that reading can do without, because what is left is a split that
        can be ranked; a pipeline still asks for them.
        """
        return set()

    def file_names(self, video_id: str) -> list[str]:
        """Full names that the file of a video may have; [] (the default) where its stem alone
        decides.
        """
        return []

    def file_stem(self, video_id: str) -> str:
        """Name of the file of a video without its last suffix, and its key in `video_paths`."""
        return video_id

    @property
    def file_pattern(self) -> str:
        """How the name of a video's file is made, for people."""
        return f"<video id>{self.suffix}"

    @property
    def file_example(self) -> str:
        """The name that the file of one video has."""
        names = self.file_names(self.example)
        return names[0] if names else f"{self.file_stem(self.example)}{self.suffix}"

    def has_published(self, *options: str) -> bool:
        """Return whether options that name lists name the published ones, wherever those lie."""
        fields = type(self.options).model_fields
        return all(
            Path(getattr(self.options, name)).name == fields[name].default.name for name in options
        )

    def load(self) -> Annotations:
        self._expect_files()
        faults = Faults(self.options.root)
        annotations = self.read(faults)
        faults.raise_if_any()
        annotations = self._without_excluded(annotations, faults)
        annotations = self._with_paths(annotations, faults)
        faults.raise_if_any()
        for name, split in annotations.splits.items():
            if not split.caption_ids:
                what = f"nothing is left of {name}"
                raise DataError(
                    what,
                    where=self.options.root,
                    fix="Do its files belong together? See docs/datasets.md.",
                )
        return annotations

    def digest(self) -> str:
        self._expect_files()
        spared = self.dispensable()
        parts = {
            role: file_digest(file.path)
            for role, file in self._needed.items()
            if role not in spared
        }
        if self.options.missing == "drop":
            marks = [
                (str(file.path), *_mark(file.path))
                for role, file in self._needed.items()
                if role not in spared
            ]
            names = sorted(video_files.walk(self.video_folder).names)
            parts["present"] = _digest_of_videos(
                type(self), self.options.model_dump_json(), digest([marks, names])
            )
        return digest(parts)

    def expected_files(self) -> list[ExpectedFile]:
        """Return the annotation files and the videos, each with its status."""
        found = [
            ExpectedFile(file.path, "annotations", file.what, file.source, int(file.path.is_file()))
            for file in self._listed
        ]
        return [*found, self._expected_videos(readable=not any(file.is_missing for file in found))]

    @property
    def video_folder(self) -> Path:
        return self.options.root / self.options.videos

    def _expected_videos(self, readable: bool) -> ExpectedFile:
        pattern = self.video_folder / self.file_pattern
        freedom = (
            "in any folder below"
            if self.file_names(self.example)
            else "in any folder below, of any format"
        )
        about = (
            "video_files",
            f"the videos, {freedom}; e.g. {self.file_example}",
            self.video_source,
        )
        if readable:
            reader = type(self)(self.options.model_copy(update={"missing": "report"}))
            try:
                paths = [video.path for video in reader.load().videos.values()]
                found, may_lack = (
                    sum(path is not None for path in paths),
                    self.options.missing == "drop",
                )
                return ExpectedFile(pattern, *about, found, len(paths), may_lack)
            except (
                DataError
            ):  # the annotations are there but wrong: the step that reads them says how
                pass
        return ExpectedFile(pattern, *about, len(video_files.walk(self.video_folder).stems), None)

    @property
    def _needed(self) -> dict[str, AnnotationFile]:
        files = self.files()
        if self.options.video_paths:
            files["video_paths"] = AnnotationFile(
                self.options.root / self.options.video_paths,
                "JSON {id: path of its file}",
                f"python cli.py paths {self.video_folder} --out {self.options.root}, "
                "or the annotation folder of CenterCLIP or DGL",
            )
        return files

    @property
    def _listed(self) -> list[AnnotationFile]:
        """The files that are needed, each once although it may be two lists (val is test)."""
        files: dict[Path, AnnotationFile] = {}
        for file in self._needed.values():
            other = files.setdefault(file.path, file)
            if other is not file:
                files[file.path] = replace(other, what=f"{other.what}, {file.what}")
        return list(files.values())

    def _expect_files(self) -> None:
        spared = self.dispensable()
        needed = {file.path for role, file in self._needed.items() if role not in spared}
        missing = [f for f in self._listed if f.path in needed and not f.path.is_file()]
        if missing:
            lines = [f"{file.path} ({file.what}); from: {file.source}" for file in missing]
            raise DataError(
                "\n    ".join(
                    [f"{len(missing)} of {len(self._listed)} annotation files are missing", *lines]
                ),
                where=self.options.root,
                fix="Put them there, or set `root` and the names of the files (docs/datasets.md).",
            )

    def _without_excluded(self, annotations: Annotations, faults: Faults) -> Annotations:
        ids: set[str] = set()
        for name in self.options.exclude:
            if name not in self.excluded and name not in annotations.videos:
                names = ", ".join(self.excluded) or "none here"
                faults.add(f"exclude: neither a video nor a published list ({names})", repr(name))
            ids.update(self.excluded.get(name, (name,)))
        gone = ids & annotations.videos.keys()
        if gone:
            annotations = without(annotations, gone)
            annotations.notes.append(
                f"left out as `exclude` says: {len(gone):,}: {_some(sorted(gone))}"
            )
        return annotations

    def _with_paths(self, annotations: Annotations, faults: Faults) -> Annotations:
        options, listed = self.options, None
        if options.video_paths:
            listed = video_files.read_list(options.root / options.video_paths, faults)
            faults.raise_if_any()  # before one of its paths is looked for
        if options.only_listed and listed is not None:
            gone = [v for v in annotations.videos if self.file_stem(v) not in listed]
            annotations = without(annotations, set(gone))
            if gone:
                annotations.notes.append(
                    f"not in {options.video_paths}, left out: {len(gone):,}: {_some(gone)}"
                )
        files = video_files.walk(self.video_folder)
        for video in list(annotations.videos.values()):
            path = self._path(video.id, files, listed)
            annotations.videos[video.id] = replace(video, path=path)
        gone = [v.id for v in annotations.videos.values() if v.path is None]
        if options.missing == "drop":
            annotations = without(annotations, set(gone))
        if gone:
            fate = "dropped with their captions" if options.missing == "drop" else "without a file"
            total = len(annotations.videos) + len(gone) * (options.missing == "drop")
            annotations.notes.append(f"{len(gone):,} of {total:,} videos are {fate}: {_some(gone)}")
        return annotations

    def _path(
        self, video_id: str, files: video_files.VideoFiles, listed: dict[str, str] | None
    ) -> Path | None:
        if listed is not None:
            return video_files.listed_file(listed, self.file_stem(video_id), files)
        for name in self.file_names(video_id):
            if found := files.by_name(name):
                return found
        return None if self.file_names(video_id) else files.by_stem(self.file_stem(video_id))


def _mark(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


@lru_cache(maxsize=4)
def _digest_of_videos(reader: type[Benchmark], options: str, _marks: str) -> str:
    """Digest of the ids that are left. Remembered, because a plan asks for it at every step;
    `_marks` changes when a file does.
    """
    return digest(list(reader(reader.Options.model_validate_json(options)).load().videos))


def without(annotations: Annotations, gone: set[str]) -> Annotations:
    """Return the annotations without some videos and their captions."""
    if not gone:
        return annotations
    videos = {i: v for i, v in annotations.videos.items() if i not in gone}
    captions = {i: c for i, c in annotations.captions.items() if c.video_id not in gone}
    splits = {
        name: Split(
            [i for i in s.caption_ids if i in captions], [i for i in s.video_ids if i in videos]
        )
        for name, s in annotations.splits.items()
    }
    return Annotations(videos, captions, splits, annotations.notes)


class Collector:
    """Puts annotations together split by split; captions of a video get the ids <video id>#0, #1,
    ...
    """

    def __init__(self) -> None:
        self.annotations = Annotations({}, {}, {})

    def add(
        self, split: str, texts: Iterable[tuple[str, str]], videos: dict[str, Video] | None = None
    ) -> None:
        """One split from (video id, text) in order; the gallery is in order of first appearance.

        videos: those of which more is known than the id. A video of an earlier split keeps its
        captions and may get further ones.
        """
        made, order, counts = self.annotations, {}, {}
        caption_ids = []
        for video_id, text in texts:
            n = counts[video_id] = counts.get(video_id, -1) + 1
            caption = Caption(f"{video_id}#{n}", video_id, text)
            while (
                made.captions.get(caption.id, caption) != caption
            ):  # another text of this video in another split
                n = counts[video_id] = counts[video_id] + 1
                caption = Caption(f"{video_id}#{n}", video_id, text)
            made.captions[caption.id] = caption
            caption_ids.append(caption.id)
            order[video_id] = None
        for video_id in order:
            made.videos.setdefault(video_id, (videos or {}).get(video_id) or Video(video_id))
        made.splits[split] = Split(caption_ids, list(order))

    def same(self, split: str, other: str) -> None:
        """A split that is another one under a second name."""
        if other in self.annotations.splits:
            self.annotations.splits[split] = self.annotations.splits[other]

    def note(self, line: str) -> None:
        self.annotations.notes.append(line)


def with_captions(
    ids: list[str],
    known: set[str] | dict,
    where: str,
    notes: list[str],
    faults: Faults,
    tolerate: bool = False,
) -> list[str]:
    """Return the ids of a list that have captions. Others are faults; with `tolerate` a few of them
    are only noted.
    """
    unknown = [i for i in ids if i not in known]
    if unknown and tolerate and len(unknown) <= _MOST_UNKNOWN * len(ids):
        notes.append(
            f"{where}: {len(unknown):,} of {len(ids):,} ids have no captions and are skipped:"
            f" {_some(unknown)}"
        )
        return [i for i in ids if i in known]
    all_of_them = " (nor has any other of its list: is one of the files of another data set?)"
    kind = "id of a split that has no captions" + all_of_them * (len(unknown) == len(ids) > 1)
    for video_id in unknown:
        faults.add(kind, f"{video_id!r} ({where})")
    return [i for i in ids if i in known]


def texts_of_list(
    path: Path, captions: Mapping[str, list[str]], faults: Faults
) -> Iterator[tuple[str, str]]:
    """Yield (video id, caption) of the ids in a file, one a line; ids without captions are
    faults.
    """
    for video_id in with_captions(read_ids(path, faults), captions, path.name, [], faults):
        for text in captions[video_id]:
            yield video_id, text


def first_existing(root: Path, names: Iterable[str], default: str) -> Path:
    """Return the first of several files that is there, else the default."""
    return next((path for name in names if (path := root / name).is_file()), root / default)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + ", ..." * (len(ids) > 3)
