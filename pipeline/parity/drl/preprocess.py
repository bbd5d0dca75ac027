"""Handler of system "drl", kind "preprocessing": ids, frame positions of both readers, pixels, a
small video file.
"""

from collections.abc import Iterator

import numpy as np
import torch

from models.clip.pixels import Pixels
from models.clip.sizes import OPENAI
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.text.clip_bpe import ClipBpe
from pipeline.video.crop import center_crop, resize_short
from pipeline.video.reader import probe, read_frames
from pipeline.video.sampling import choose_frames, published_int_rate, published_window, strided

_PILLOW = Tolerance(1e-5)  # the case allows one 8-bit step, and says that Pillow's bicubic is exact


def preprocessing(case: Case) -> Iterator[Comparison]:
    """Text and positions must be equal; pixels within what the case allows for other decoders."""
    stated = case.info["tolerance"]
    bpe = ClipBpe.load()
    for words in case.info["max_words"]:
        ids, real = bpe.batch(case.info["captions"], words)
        yield equal(f"text_ids_{words}", ids, case.outputs[f"text_ids_{words}"])
        yield equal(f"text_mask_{words}", real.astype(np.int64), case.outputs[f"text_mask_{words}"])
    yield from _positions(case)
    size = case.info["image_resolution"]
    for name, picture in case.inputs.items():
        number = name.removeprefix("frame")
        yield close(
            f"tensor{number}",
            _pixels(picture[None], size)[0],
            case.outputs[f"tensor{number}"],
            _PILLOW,
        )
    yield from _file(case, size, Tolerance.parse(stated["mp4_video"].removeprefix("atol ")))


def _positions(case: Case) -> Iterator[Comparison]:
    readers = {"decord": _decord, "cv2": _cv2}
    for name, reader in readers.items():
        columns = len(case.info[f"{name}_table_columns"])
        recorded = case.outputs[f"{name}_positions"]
        rows = np.full_like(recorded, -1)
        for row, settings in zip(rows, case.info[f"{name}_table"], strict=True):
            assert len(settings) == columns
            found = reader(*settings)
            row[: len(found)] = found
        yield equal(f"{name}_positions", rows, recorded)


def _decord(
    n: int, rate: float, fps: float, most: int, start: float | None, end: float | None
) -> np.ndarray:
    """Return the default reader: a stride, a time window, then `most` of the candidates, evenly."""
    first, last = published_window(n, rate, start, end)
    candidates = first + strided(last - first + 1, rate, fps)
    return (
        candidates[choose_frames(len(candidates), most, "linspace")[0]]
        if len(candidates) > most
        else candidates
    )


def _cv2(n: int, rate: float, fps: int, start: int | None, end: int | None) -> np.ndarray:
    return published_int_rate(n, rate, fps, start or 0, end)


def _pixels(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) -> what the tower reads, float32 (T, 3, size, size)."""
    square = np.ascontiguousarray(center_crop(resize_short(frames, size), size))
    return Pixels(size, OPENAI)(torch.from_numpy(square)).numpy()


def _file(case: Case, size: int, allowed: Tolerance) -> Iterator[Comparison]:
    """Yield a video file from its bytes to the tensor with zeros behind."""
    recorded = case.info["mp4"]
    path = case.path(recorded["file"])
    info = probe(path)
    facts = {
        "n_frames": info.frames,
        "width": info.width,
        "height": info.height,
        "fps": float(info.fps),
    }
    facts |= {"decord_avg_fps": float(info.fps), "decord_len": info.frames}
    for name, value in facts.items():
        yield close(f"mp4[{name}]", value, recorded[name], Tolerance(1e-6))
    most = recorded["max_frames"]
    positions = _decord(
        info.frames,
        float(info.fps),
        fps=recorded["video_framerate"],
        most=most,
        start=None,
        end=None,
    )
    yield equal("mp4_positions", positions, case.outputs["mp4_positions"])
    frames = _pixels(read_frames(path, positions), size)
    video = np.zeros((most, *frames.shape[1:]), np.float32)
    video[: len(frames)] = frames
    yield close("mp4_video", video, case.outputs["mp4_video"], allowed)
    yield equal(
        "mp4_mask", (np.arange(most) < len(frames)).astype(np.int64), case.outputs["mp4_mask"]
    )


HANDLERS = {"preprocessing": preprocessing}
