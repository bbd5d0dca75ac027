"""One video file, encoded by a model that reads frames: for search by a video of one's own."""

from pathlib import Path

import numpy as np

from models.base import Encoding, RetrievalModel
from pipeline.errors import DataError
from pipeline.feeding.frame_source import DecodedFiles
from pipeline.feeding.frames import FrameReader
from pipeline.feeding.loader import Slot
from pipeline.recipes.options import FrameOptions


def encode_file(model: RetrievalModel, path: Path, options: FrameOptions) -> Encoding:
    """The encoding of the video at `path`, of its frames as the evaluation chooses them. DataError
    if it is unreadable.

    A file has more frames per second than what was trained on, but evenly spaced ones show the same
    moments.
    """
    name = path.name
    source = DecodedFiles({name: path}, model.inputs.size, options.fit, options.fps)
    reader = FrameReader(source, model.inputs.frames, options, threads=1)
    if fault := reader.faults([name]).get(name):
        raise DataError(
            f"its frames cannot be read: {fault}", where=path, fix="Give a video file that plays."
        )
    batch = reader.videos([name]).batch(np.zeros(1, np.int64), Slot())
    device = next(model.parameters()).device
    return model.encode_video(
        {key: value.to(device) for key, value in batch.items()}, model.prepare()
    )
