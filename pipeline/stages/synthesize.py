"""Draw the demo corpus: real H.264 clips with captions.

Each clip is drawn from its scene and encoded with a length, size, frame rate and rotation of its
own. `TextData/` holds the captions in the Dual Encoding format (`<video id>#<n> <text>`), one file
per split.
"""

from collections.abc import Iterable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, Field

from pipeline.core.files import atomic_path, atomic_write, disk_name, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import Record, digest
from pipeline.datasets import base, synthetic
from pipeline.errors import ConfigError


class Stage(Base):
    needs: ClassVar[dict[str, Need]] = {
        "annotations": Need("annotations", help="a dataset of type synthetic")
    }
    makes: ClassVar[str] = "video_files"
    runs: ClassVar[str] = "workers"

    class Options(BaseModel, extra="forbid"):
        crf: int = Field(
            20,
            ge=1,
            le=40,
            description=("H.264 quality; a lower number gives better and larger files"),
        )

    def items(self) -> Iterable[Item]:
        for clip in self._dataset().clips():
            yield Item(clip.id, digest(asdict(clip)), payload=clip, source=clip.id)

    def process(self, item: Item) -> Outcome:
        clip: synthetic.DrawnClip = item.payload
        name = disk_name(clip.id, ".mp4")
        with atomic_path(self.out / name, ".mp4") as path:
            _encode(clip, path, self.options.crf)
        facts = {
            k: getattr(clip, k) for k in ("split", "frames", "fps", "width", "height", "rotation")
        }
        return Outcome(outputs={name: written(self.out / name)}, facts=facts)

    def timeout(self, item: Item) -> float:
        return 600.0

    def finish(self, records: list[Record]) -> dict:
        drawn = {record.id for record in records}
        annotations = self._dataset().load()
        for split in annotations.splits:
            lines = [f"{c.id} {c.text}\n" for c in annotations.texts(split) if c.video_id in drawn]
            atomic_write(self.out / "TextData" / f"demo{split}.caption.txt", "".join(lines))
        seconds = sum(r.facts["frames"] / Fraction(r.facts["fps"]) for r in records)
        return {
            "clips": len(records),
            "frames": sum(r.facts["frames"] for r in records),
            "seconds": round(float(seconds), 3),
        }

    def files(self) -> list[Path]:
        return sorted((self.out / "TextData").iterdir())

    def _dataset(self) -> synthetic.Dataset:
        spec = self.inputs["annotations"].options
        dataset = base.open_dataset(spec)
        if not isinstance(dataset, synthetic.Dataset):
            raise ConfigError(
                f"a dataset of type {spec['type']} cannot be drawn",
                where="synthesize",
                fix=(
                    "Use a dataset of type synthetic, or remove the step: real datasets bring their"
                    " own videos."
                ),
            )
        return dataset


def _encode(clip: synthetic.DrawnClip, path: Path, crf: int) -> None:
    """Write the clip as an H.264 mp4; the stored picture is turned back by `clip.rotation`, which
    players undo.
    """
    import av

    from pipeline.datasets.parts import draw

    turns = clip.rotation // 90
    rate = Fraction(clip.fps)
    with av.open(
        str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}
    ) as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"preset": "superfast", "crf": str(crf)}
        )
        stream.width, stream.height = (
            (clip.width, clip.height) if turns % 2 == 0 else (clip.height, clip.width)
        )
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = (
            1  # one worker per core; and the bytes do not depend on the machine
        )
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        for index, picture in enumerate(
            draw.frames(clip.scene, clip.frames, clip.width, clip.height)
        ):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(np.rot90(picture, k=-turns)), format="rgb24"
            )
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
