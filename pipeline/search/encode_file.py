"""One video file or picture, encoded by a model that reads frames: to search by one's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, RetrievalModel
from pipeline.errors import DataError
from pipeline.feeding.frame_source import DecodedFiles
from pipeline.feeding.frames import FrameReader
from pipeline.feeding.loader import Slot
from pipeline.recipes.options import FrameOptions
from pipeline.search.answers import unknown_video
from pipeline.stores.big_file.reader import BigFile
from pipeline.video.crop import fit_square

_MOST_PIXELS = 1 << 26


def encode_one(
    model: RetrievalModel,
    features: Path | None,
    video: str,
    known: Sequence[str],
    options: FrameOptions,
) -> Encoding:
    """Return a video that is not searched itself: of a BigFile, or a file where the model reads
    frames.

    known: ids to suggest. DataError if it is neither, or cannot be read.
    """
    if features is not None:
        return encode_features(model, features, video)
    path = Path(video).expanduser()
    if model.inputs.video != "frames" or not path.is_file():
        raise unknown_video(video, known)
    return encode_file(model, path, options)


def encode_features(model: RetrievalModel, features: Path, video_id: str) -> Encoding:
    """Return one video of a BigFile, encoded. DataError, with ids that are near, if it is not
    there.
    """
    store = BigFile.open(features)
    if video_id not in store.videos:
        raise unknown_video(video_id, list(store.videos))
    return encode_rows(model, np.array(store.read_video(video_id)))


def encode_rows(model: RetrievalModel, features: np.ndarray) -> Encoding:
    """Return the encoding of one video from the features of its frames, float32 (T, F)."""
    rows = torch.from_numpy(features)[None]
    real = torch.ones(rows.shape[:2], dtype=torch.bool)
    return _encoded(model, {"features": rows, "video_mask": real})


def encode_file(model: RetrievalModel, path: Path, options: FrameOptions) -> Encoding:
    """Return the encoding of the video at `path`, of its frames as the evaluation chooses them.
    DataError if it is unreadable.
    """
    return _encoded(model, frames_of_file(model, path, options))


def frames_of_file(
    model: RetrievalModel, path: Path, options: FrameOptions
) -> dict[str, torch.Tensor]:
    """Return a batch of one video file as the model is tested on it: frames (1, T, S, S, 3) uint8,
    video_mask (1, T).

    Of a file with more frames per second only those are read that the recipe's `frames.fps` names.
    DataError if it is unreadable.
    """
    name = path.name
    source = DecodedFiles({name: path}, model.inputs.size, options.fit, options.fps)
    reader = FrameReader(source, model.inputs.frames, options, threads=1)
    if fault := reader.faults([name]).get(name):
        raise DataError(
            f"its frames cannot be read: {fault}", where=path, fix="Give a video file that plays."
        )
    return reader.videos([name]).batch(np.zeros(1, np.int64), Slot())


def encode_picture(model: RetrievalModel, path: Path, options: FrameOptions) -> Encoding:
    """Return the encoding of a video that shows nothing but the picture at `path`. DataError if it
    is unreadable.
    """
    image = fit_square(_picture(path)[None], model.inputs.size, options.fit)
    frames = np.repeat(image, model.inputs.frames, axis=0)[None]
    real = torch.ones(1, model.inputs.frames, dtype=torch.bool)
    return _encoded(model, {"frames": torch.from_numpy(frames), "video_mask": real})


def _picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB, upright. Nothing larger than 64 megapixels is decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width:,} x {image.height:,} pixels are too many")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, MemoryError) as error:
        raise DataError(
            f"not a picture that can be read: {error}",
            where=path,
            fix="Give a JPEG, PNG or WebP file.",
        ) from error


def _encoded(model: RetrievalModel, batch: dict[str, torch.Tensor]) -> Encoding:
    device = next(model.parameters()).device
    shared = model.prepare()
    return model.encode_video({key: value.to(device) for key, value in batch.items()}, shared)
