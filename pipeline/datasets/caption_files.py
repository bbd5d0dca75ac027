"""Caption files of the Dual Encoding family: one line "video id#number text" per caption, one file
per split.

`root` is a collection (`TextData/*train.caption.txt`, ...) or one caption file. Source:
dongYoun2/dual-encoding-system:
dataset.py; danieljf24/hybrid_space: util/vocab.py, basic/constant.py (docs/specs/dual-encoding.md,
section 9.2, 10.4).

Read more carefully than published: what would crash or mix up captions there (no text, a caption id
twice, bytes that are not UTF-8) is reported by line; a byte-order mark and carriage returns are
dropped; videos are listed once, in order of first appearance, also when their captions are
scattered.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from pipeline.core.files import file_digest
from pipeline.core.state import digest
from pipeline.datasets import base
from pipeline.datasets.base import Annotations, Caption, ExpectedFile, Faults, Split, Video
from pipeline.errors import DataError

SPLITS = ("train", "val", "test")
_BOM = b"\xef\xbb\xbf"
_SOURCE = (
    "msrvtt10k-resnext101_resnet152.tar.gz of MSR-VTT: README of danieljf24/hybrid_space; else"
    " your own"
)
_NUMBER = re.compile(r"[A-Za-z0-9._@+#-]+")  # of a caption id, after its first #
Line = tuple[str, str, str]  # where (file:line), caption id, text


class Options(BaseModel, extra="forbid"):
    root: Path = Field(description="folder of the collection (holds TextData), or one caption file")
    prefix: str | None = Field(
        None,
        description=(
            "beginning of the file names, e.g. msrvtt10kmiech (needed when TextData holds several)"
        ),
    )
    train: Path | None = Field(None, description="caption file of this split, relative to root")
    val: Path | None = Field(None, description="caption file of this split, relative to root")
    test: Path | None = Field(None, description="caption file of this split, relative to root")
    split: str = Field("train", description="name of the only split when root is one caption file")
    strip_suffix: bool = Field(
        False, description="drop .jpg and .mp4 from the end of video ids, as hybrid_space does"
    )
    tiny: int | None = Field(
        None, ge=1, description="for debugging: read the first caption of this many videos only"
    )


class Dataset(base.Dataset):
    Options: ClassVar[type[BaseModel]] = Options

    def load(self) -> Annotations:
        faults = Faults(self.options.root)
        annotations = Annotations({}, {}, {})
        for split, path in self.files().items():
            lines = _read_lines(path, faults)
            if self.options.tiny:
                lines = first_captions(lines, self.options.tiny)
            self._add(annotations, split, lines, faults)
        faults.raise_if_any()
        return annotations

    def digest(self) -> str:
        return digest({split: file_digest(path) for split, path in self.files().items()})

    def expected_files(self) -> list[ExpectedFile]:
        """Return the caption files of a collection that has none; [] where there are some, or they
        are named by options.
        """
        options, folder = self.options, self.options.root / "TextData"
        given = any(getattr(options, split) for split in SPLITS) or options.root.is_file()
        if given or any(folder.glob(f"{options.prefix or ''}*.caption.txt")):
            return []
        name = options.prefix or "<collection>"
        return [
            ExpectedFile(
                folder / f"{name}{split}.caption.txt",
                "annotations",
                f"captions of {split}",
                _SOURCE,
            )
            for split in SPLITS
        ]

    def files(self) -> dict[str, Path]:
        """Return {split: its caption file}. DataError if there is none, or it is not clear
        which.
        """
        options = self.options
        if options.root.is_file():
            return {options.split: options.root}
        given = {
            split: options.root / path for split in SPLITS if (path := getattr(options, split))
        }
        return given or self._collection()

    def _collection(self) -> dict[str, Path]:
        prefix, folder = self.options.prefix, self.options.root / "TextData"
        found = {}
        for split in SPLITS:
            name = f"*{split}.caption.txt" if prefix is None else f"{prefix}{split}.caption.txt"
            paths = sorted(path for path in folder.glob(name) if path.is_file())
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                raise DataError(
                    f"several caption files: {names}", where=folder, fix="Say which with `prefix`."
                )
            if paths:
                found[split] = paths[0]
        if not found:
            names = ", ".join(f"{prefix or '*'}{split}.caption.txt" for split in SPLITS)
            raise DataError(
                f"no caption files ({names})",
                where=folder,
                fix=(
                    "Put them there, or check `root` and `prefix`, or name the files with `train`,"
                    " `val`, `test`."
                ),
            )
        return found

    def _add(
        self, annotations: Annotations, split: str, lines: Iterable[Line], faults: Faults
    ) -> None:
        ids: dict[str, None] = {}
        videos: dict[str, None] = {}
        safe: set[str] = set()
        for where, caption_id, text in lines:
            video_id, _, number = caption_id.partition("#")
            if self.options.strip_suffix:
                video_id = video_id.removesuffix(".jpg").removesuffix(".mp4")
            if video_id not in safe and faults.check_id(video_id, where):
                safe.add(video_id)
            if number and not _NUMBER.fullmatch(number):
                faults.add(
                    "caption number with characters outside A-Z a-z 0-9 . _ @ + # -",
                    f"{caption_id!r} ({where})",
                )
            known = annotations.captions.get(caption_id)
            if caption_id in ids:
                faults.add("caption id that occurs twice", f"{caption_id!r} ({where})")
            elif known and known.text != text:
                faults.add(
                    "caption id with another text in another split", f"{caption_id!r} ({where})"
                )
            ids[caption_id] = videos[video_id] = None
            annotations.captions[caption_id] = Caption(caption_id, video_id, text)
        if not ids:
            faults.add("split without a caption", split)
        for video_id in videos:
            annotations.videos.setdefault(video_id, Video(video_id))
        annotations.splits[split] = Split(list(ids), list(videos))


def first_captions(lines: Iterable[Line], n_videos: int) -> Iterator[Line]:
    """Yield the lines at which the video changes, the first `n_videos` of them: the published tiny
    captions.
    """
    before = None
    for line in lines:
        video_id = line[1].partition("#")[0]
        if video_id != before:
            before = video_id
            yield line
            n_videos -= 1
            if not n_videos:
                return


def _read_lines(path: Path, faults: Faults) -> Iterator[Line]:
    try:
        data = path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    for n, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"{path.name}:{n}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            faults.add("line that is not UTF-8", f"byte {raw[error.start]:#04x} ({where})")
            continue
        caption_id, _, text = line.partition(" ")
        if "\t" in caption_id:
            faults.add(
                "tab instead of a space after the caption id", f"{caption_id[:40]!r} ({where})"
            )
        elif not text.strip():
            faults.add("caption without text", f"{caption_id[:40]!r} ({where})")
        else:
            yield where, caption_id, text.strip()
