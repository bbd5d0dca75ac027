"""Chosen frames of a video in a FrameStore, one by one, in the way of a video file
(`stores.video.ClipReader`).
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.item_errors import as_item_error
from pipeline.video.frame_rule import FrameChoice, Limits
from pipeline.video.reader import ClipReader, Frame, iterate_clip
from pipeline.video.timeline import Timing, select

_AT_ONCE = 16  # frames decoded per read, so that memory stays bounded


class StoredClip:
    """Iterate once: a Frame per chosen frame, `source_index` being its place in the store. status:
    as ClipReader.
    """

    status: Literal["ok"] = "ok"
    reason = message = ""

    def __init__(self, store: FrameStore, video_id: str, choice: FrameChoice):
        self._store, self._video_id, self._choice = store, video_id, choice

    def __iter__(self) -> Iterator[Frame]:
        with as_item_error():
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        info = self._store.info(self._video_id)
        times = info.times_ms.tolist()
        chosen = list(select(self._choice, times, Timing(Fraction(1, 1000), 1 / info.fps)))
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            images = self._store.read(self._video_id, [index for index, _ in part])
            for image, (index, repeats) in zip(images, part, strict=True):
                yield Frame(image, times[index], index, repeats)


def read_clip(
    store: FrameStore, video_id: str, choice: FrameChoice, limits: Limits
) -> StoredClip | ClipReader:
    """Return the chosen frames of a stored video. Stores of the published layout hold video files:
    those are decoded.
    """
    if store.layout == "mp4":
        with as_item_error():
            return iterate_clip(store.bytes(video_id), choice, None, limits)
    return StoredClip(store, video_id, choice)
