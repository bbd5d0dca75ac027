import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.runner import run
from pipeline.core.stage import Item
from pipeline.core.state import STATE, Record
from pipeline.datasets import base
from pipeline.datasets.parts import draw
from pipeline.datasets.synthetic import Dataset, Options
from pipeline.errors import ConfigError
from pipeline.stages.synthesize import Stage

CORPUS = {
    "videos": {"train": 40, "val": 2, "test": 4},
    "seconds": [1.5, 2.0],
    "long_side": [160, 200],
    "rotated": 0.5,
}


def stage_in(out: Path, **options: object) -> Stage:
    spec = {"type": "synthetic", **CORPUS, **options}
    return Stage(Stage.Options(), {"annotations": Artefact("annotations", out, options=spec)}, out)


def record(stage: Stage, item: Item) -> Record:
    outcome = stage.process(item)
    return Record(item.id, item.key, "step", "ok", outputs=outcome.outputs, facts=outcome.facts)


def displayed(path: Path) -> tuple[np.ndarray, av.video.stream.VideoStream]:
    """All frames as a player shows them, and the stream (closed: for its facts only)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            np.rot90(f.to_ndarray(format="rgb24"), k=f.rotation // 90)
            for f in container.decode(stream)
        ]
        facts = (stream.codec_context.name, stream.average_rate, stream.codec_context.pix_fmt)
    return np.stack(frames), facts


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_decoded_clip_shows_what_was_drawn_at_every_rotation(tmp_path: Path, rotation: int) -> None:
    stage = stage_in(tmp_path)
    item = next(
        i
        for i in stage.items()
        if i.payload.rotation == rotation and i.payload.width != i.payload.height
    )
    clip = item.payload

    stage.process(item)
    frames, (codec, rate, pix_fmt) = displayed(tmp_path / f"{clip.id}.mp4")

    drawn = np.stack(list(draw.frames(clip.scene, clip.frames, clip.width, clip.height)))
    assert (codec, str(rate), pix_fmt) == ("h264", clip.fps, "yuv420p")
    assert frames.shape == drawn.shape
    assert min(psnr(a, b) for a, b in zip(frames, drawn, strict=True)) > 30


@pytest.mark.parametrize("fps", ["10", "12", "15", "24", "25", "30000/1001", "30"])
def test_clip_has_its_frame_rate_and_length(tmp_path: Path, fps: str) -> None:
    stage = stage_in(tmp_path, long_side=[64, 64])
    item = next(i for i in stage.items() if i.payload.fps == fps)

    outcome = stage.process(item)
    frames, (_, rate, _) = displayed(tmp_path / f"{item.id}.mp4")

    assert (len(frames), str(rate)) == (item.payload.frames, fps)
    assert outcome.facts["frames"] == len(frames)


def test_same_clip_gives_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    first, second = stage_in(tmp_path / "a"), stage_in(tmp_path / "b")

    digests = [
        [stage.process(item).outputs for item in list(stage.items())[:2]]
        for stage in (first, second)
    ]

    assert digests[0] == digests[1]


def test_outputs_name_the_file_and_its_digest(tmp_path: Path) -> None:
    stage = stage_in(tmp_path)
    item = next(iter(stage.items()))

    outputs = stage.process(item).outputs

    data = (tmp_path / "demo_train_0001.mp4").read_bytes()
    assert outputs == {
        "demo_train_0001.mp4": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    }
    assert not list(tmp_path.glob(".tmp-*"))


def test_captions_written_at_the_end_read_back_as_a_dual_encoding_collection(
    tmp_path: Path,
) -> None:
    small = CORPUS | {"videos": {"train": 2, "val": 2, "test": 4}, "long_side": [64, 64]}
    stage = stage_in(tmp_path, **small)

    summary = stage.finish([record(stage, item) for item in stage.items()])

    known = Dataset(Options(**small)).load()
    read = base.open_dataset({"type": "caption_files", "root": tmp_path}).load()
    assert summary["clips"] == 8
    assert read.captions == known.captions
    assert read.splits == known.splits


def test_captions_of_a_clip_that_failed_are_left_out(tmp_path: Path) -> None:
    stage = stage_in(tmp_path, videos={"train": 2, "val": 2, "test": 2}, long_side=[64, 64])
    records = [record(stage, item) for item in stage.items()]

    stage.finish(records[1:])

    lines = (
        (tmp_path / "TextData" / "demotrain.caption.txt").read_text(encoding="utf-8").splitlines()
    )
    assert {line.split("#")[0] for line in lines} == {"demo_train_0002"}


def test_key_of_an_item_changes_with_its_scene_only(tmp_path: Path) -> None:
    keys = {i.id: i.key for i in stage_in(tmp_path).items()}

    more_captions = {i.id: i.key for i in stage_in(tmp_path, captions_per_video=3).items()}
    other_seed = {i.id: i.key for i in stage_in(tmp_path, seed=8).items()}

    assert more_captions == keys
    assert not set(other_seed.values()) & set(keys.values())


def test_a_dataset_that_brings_its_own_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("video1#0 a man cooks\n", encoding="utf-8")
    spec = {"type": "caption_files", "root": tmp_path / "captions.txt"}
    stage = Stage(
        Stage.Options(), {"annotations": Artefact("annotations", tmp_path, options=spec)}, tmp_path
    )

    with pytest.raises(ConfigError, match="caption_files cannot be drawn"):
        list(stage.items())


def test_one_and_two_workers_give_the_same_bytes(tmp_path: Path) -> None:
    small = {"videos": {"train": 4, "val": 2, "test": 2}, "long_side": [64, 64]}

    for jobs in (1, 2):
        run(stage_in(tmp_path / str(jobs), **small), jobs=jobs)

    one, two = (
        {
            p.relative_to(folder): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file() and STATE not in p.parts
        }
        for folder in (tmp_path / "1", tmp_path / "2")
    )
    assert len(one) == 11
    assert one == two
