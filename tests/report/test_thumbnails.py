"""Thumbnails from a frame store or from files; what cannot be shown is left out."""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipeline.report.thumbnails import PictureSource, thumbnails


def video(path: Path, n_frames: int = 12) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(12), options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for n in range(n_frames):
            picture = np.full((64, 96, 3), 20 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def step_with(folder: Path, names: dict[str, str]) -> PictureSource:
    (folder / "_state").mkdir(parents=True)
    lines = [
        json.dumps(
            {
                "id": i,
                "key": "k",
                "step": "s",
                "status": "ok",
                "outputs": {name: {"bytes": 1, "sha256": ""}},
            }
        )
        for i, name in names.items()
    ]
    (folder / "_state" / "items.jsonl").write_text("\n".join(lines) + "\n")
    return PictureSource("video_files", folder)


def test_three_small_pictures_in_the_order_of_time(tmp_path: Path) -> None:
    source = step_with(tmp_path / "step", {"clip": "clip.mp4"})
    video(tmp_path / "step" / "clip.mp4")

    pictures = [Image.open(io.BytesIO(jpeg)) for jpeg in thumbnails(["clip"], [source])["clip"]]

    assert [picture.size for picture in pictures] == [(90, 60)] * 3
    brightness = [np.asarray(picture).mean() for picture in pictures]
    assert brightness == sorted(brightness)


def test_what_is_absent_or_damaged_is_left_out(tmp_path: Path) -> None:
    source = step_with(tmp_path / "step", {"bad": "bad.mp4"})
    (tmp_path / "step" / "bad.mp4").write_bytes(b"no video")

    assert thumbnails(["bad", "unknown"], [source]) == {}


def test_the_first_source_that_has_a_video_is_used(tmp_path: Path) -> None:
    small, original = (
        step_with(tmp_path / name, {"clip": "clip.mp4"}) for name in ("small", "original")
    )
    (small.path / "clip.mp4").write_bytes(b"no video")
    video(original.path / "clip.mp4")

    assert len(thumbnails(["clip"], [small, original])["clip"]) == 3
