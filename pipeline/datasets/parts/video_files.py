"""Which file a video id stands for: a walk through a folder, or the published lists {id: path}.

An id is only ever looked up among the files that were found; it never becomes part of a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.datasets.base import Faults
from pipeline.datasets.parts.annotation_files import read_json
from pipeline.datasets.parts.listing import list_below
from pipeline.datasets.parts.video_marks import is_video_name

_LONGEST_NAME = 255  # bytes
LIST_LAYOUT = (  # of video_path.json (CenterCLIP, DGL) and video_dict.json (the DRL fork)
    "a text by video"
)


@dataclass(frozen=True)
class VideoFiles:
    """The files below a folder. names: every file by its name. stems: videos by their name without
    the last suffix.

    Of several files with one name the last one met counts, in sorted order, as in the published
    walks; of several with one stem an .mp4 goes before the others. shared: stems that several
    videos have.
    """

    folder: Path
    names: dict[str, str]
    stems: dict[str, str]
    shared: list[str]

    def by_name(self, name: str) -> Path | None:
        return Path(found) if (found := self.names.get(name)) else None

    def by_stem(self, stem: str) -> Path | None:
        return Path(found) if (found := self.stems.get(stem)) else None


def walk(folder: Path) -> VideoFiles:
    """Return all files below a folder; none if it is missing. DataError if a folder cannot be
    listed.
    """
    names: dict[str, str] = {}
    stems: dict[str, str] = {}
    shared: dict[str, None] = {}
    listing = list_below(folder)
    listing.tell(with_others=False)  # some readers know files by their whole names
    videos = set(listing.videos)
    for file in listing.files:
        path = names[file.name] = str(file)
        if file not in videos:
            continue
        stem = file.name.rpartition(".")[0] if is_video_name(file.name) else file.name
        if stem in stems:
            shared[stem] = None
            if stems[stem].endswith(".mp4") and not path.endswith(".mp4"):
                continue
        stems[stem] = path
    return VideoFiles(folder, names, stems, list(shared))


def read_list(path: Path, faults: Faults) -> dict[str, str]:
    """Return {id: path} of a video_path.json or video_dict.json. Paths that leave their folder
    become faults.
    """
    listed: dict[str, str] = read_json(path, LIST_LAYOUT)[1]
    for video_id, value in listed.items():
        faults.check_id(video_id, path.name)
        pure = PurePosixPath(value) if isinstance(value, str) else None
        if (
            pure is None
            or not pure.name
            or pure.is_absolute()
            or ".." in pure.parts
            or "\\" in value
        ):
            faults.add(
                "path that is absolute, or leaves its folder",
                f"{video_id!r}: {value!r:.60} ({path.name})",
            )
        elif (
            "\0" in value
            or max(len(part.encode("utf-8", "replace")) for part in pure.parts) > _LONGEST_NAME
        ):
            faults.add("path that no file can have", f"{video_id!r}: {value!r:.60} ({path.name})")
    return listed


def listed_file(listed: Mapping[str, str], key: str, files: VideoFiles) -> Path | None:
    """Return the file that a list names for a key: below the folder as it says, else the file of
    that name anywhere in it, else the video with that name and another suffix (a list of .avi
    files, of which one has compressed .mp4).
    """
    if key not in listed:
        return None
    path = files.folder / listed[key]
    return path if path.is_file() else files.by_name(path.name) or files.by_stem(path.stem)
