"""When the frames of a video are shown, before any of them is decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.video.container import open_video, scan
from pipeline.video.decode import is_regular
from pipeline.video.frame_rule import FrameChoice, Limits
from pipeline.video.reader import iterate_clip


@dataclass(frozen=True)
class FrameTimes:
    """ms int64 (n,), rising, the first frame at 0. step: ms that the last frame is shown for."""

    ms: np.ndarray
    step: float

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return (float(self.ms[-1]) + self.step) / 1000


def frame_times(source: Path | bytes, limits: Limits) -> FrameTimes:
    """Times of all frames that decode. Packets tell them; where they do not, all is decoded.

    ItemError as `reader.decode_clip`.
    """
    with open_video(source, limits) as video:
        found, timing = scan(video), video.timing
        if is_regular(video, found):
            stamps = np.array(sorted(found.stamps), np.int64)
            ms = np.rint((stamps - stamps[0]) * float(timing.tick * 1000)).astype(np.int64)
            return FrameTimes(ms, float(timing.step * 1000))
    reader = iterate_clip(source, FrameChoice("all"), None, limits)
    ms = np.array([chosen.time_ms for chosen in reader.chosen()], np.int64)
    return FrameTimes(ms, 1000 / float(reader.fps))
