"""Small pictures of videos for the report: three frames each, as JPEG, from a frame store or from
video files.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.state import usable_records
from pipeline.errors import DataError, ItemError

_HEIGHT = 60
_PLACES = (0.1, 0.5, 0.9)  # of the video: so that a reader sees what moves


@dataclass(frozen=True)
class PictureSource:
    """A finished step that holds pictures: kind "frame_store" or "video_files", and its folder."""

    kind: str
    path: Path


def thumbnails(video_ids: Iterable[str], sources: list[PictureSource]) -> dict[str, list[bytes]]:
    """JPEGs by video id; ids that no source can show are left out (the report then shows the id
    alone).
    """
    found: dict[str, list[bytes]] = {}
    wanted = list(dict.fromkeys(video_ids))
    for source in sources:
        missing = [video_id for video_id in wanted if video_id not in found]
        if missing:
            found |= _READERS[source.kind](source.path, missing)
    return found


def _from_store(path: Path, video_ids: list[str]) -> dict[str, list[bytes]]:
    from pipeline.stores.frame_store.reader import FrameStore

    store = FrameStore.open(path)
    found = {}
    for video_id in video_ids:
        try:
            count = store.info(video_id).frames
            found[video_id] = [_jpeg(frame) for frame in store.read(video_id, _spread(count))]
        except (KeyError, DataError):
            continue  # one damaged or absent value must not cost the report; its card shows the id
    return found


def _from_files(path: Path, video_ids: list[str]) -> dict[str, list[bytes]]:
    from pipeline.video.reader import probe, read_frames

    files = {record.id: next(iter(record.outputs), None) for record in usable_records(path)}
    found = {}
    for video_id in video_ids:
        if not files.get(video_id):
            continue
        try:
            count = probe(path / files[video_id]).frames or 1
            found[video_id] = [
                _jpeg(frame) for frame in read_frames(path / files[video_id], _spread(count))
            ]
        except ItemError:
            continue  # as above
    return found


_READERS = {"frame_store": _from_store, "video_files": _from_files}


def _spread(count: int) -> list[int]:
    return [min(count - 1, int(place * count)) for place in _PLACES]


def _jpeg(frame: object) -> bytes:
    from PIL import Image

    image = Image.fromarray(frame)
    width = max(1, round(image.width * _HEIGHT / image.height))
    buffer = io.BytesIO()
    image.resize((min(width, 4 * _HEIGHT), _HEIGHT), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=80
    )
    return buffer.getvalue()
