"""A corpus of small videos, each of its own colour and shape of waves, with captions; and a recipe
of a tiny CLIP.
"""

from pathlib import Path

import numpy as np

from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from tests.stages.store_runs import frames, tensors
from tests.stores.frame_store.frame_clips import write_video

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 190, 40),
    "blue": (30, 40, 220),
    "white": (230, 230, 230),
}
PLACES = {"left": slice(0, 32), "right": slice(32, 64), "everywhere": slice(0, 64)}
SIZE = 64
RECIPE = {
    "name": "tiny",
    "model": "centerclip",
    "options": {"backbone": "tiny", "frames": 3, "words": 12},
    "train": {
        "epochs": 2, "batch_size": 8, "log_every": 1, "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "constant", "warmup": 0}, "precision": "float32",
    },
}  # fmt: skip


def recipe(**train: object) -> dict:
    return RECIPE | {"train": RECIPE["train"] | train}


def build(folder: Path) -> dict[str, Artefact]:
    """Inputs of a training: 12 videos to train on and 12 to validate, as files, frame store and
    tensor cache.
    """
    rng, lines = np.random.default_rng(0), {"train": [], "val": [], "test": []}
    for split, captions in lines.items():
        for n, (colour, place) in enumerate((c, p) for c in COLOURS for p in PLACES):
            clip = rng.integers(0, 30, (4 + n % 3, SIZE, SIZE, 3), dtype=np.uint8)
            clip[:, :, PLACES[place]] = COLOURS[colour]
            write_video(folder / "videos" / f"{split}{n}.mp4", clip)
            captions.append(f"{split}{n}#0 something {colour} is {place}")
    (folder / "TextData").mkdir()
    for split, captions in lines.items():
        (folder / "TextData" / f"toy{split}.caption.txt").write_text("\n".join(captions) + "\n")
    videos = Artefact("video_files", folder / "videos", content="videos")
    store = frames(videos, folder / "store")
    tensors({"store": store}, folder / "tensors", frames={"size": SIZE})
    return {
        "videos": videos,
        "store": store,
        "tensors": Artefact("tensors", folder / "tensors", "tensors", content="tensors"),
        "annotations": dataset_artefact(
            {"type": "caption_files", "root": str(folder)}, "annotations"
        ),
    }
