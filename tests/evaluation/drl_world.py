"""A DRL checkpoint and the encodings of four videos and captions, as train and evaluate would leave
them.
"""

from pathlib import Path

import numpy as np
import torch

from pipeline.checkpoints import model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.core.files import file_digest
from pipeline.evaluation import results
from pipeline.recipes.recipe import parse
from pipeline.text.clip_bpe import ClipBpe

TEXTS = [
    "a red circle moves left",
    "two dogs, barking!",
    "a man cooks",
    "nothing happens in a supercalifragilistic way",
]
RECIPE = {
    "name": "drl_of_tests",
    "model": "drl",
    "options": {"backbone": "tiny", "words": 16, "frames": 3, "temporal_layers": 1},
    "train": {"optimizer": {"lr": 1.0e-4}},
}
FACTS = {"feature_dim": 0, "vocabulary": {}, "tags": [], "word_dim": None, "inputs": {}}


def make(folder: Path, **options: object) -> tuple[Path, Path]:
    """(checkpoint, folder of results). Caption n belongs to video n."""
    torch.manual_seed(0)
    recipe = parse(RECIPE | {"options": RECIPE["options"] | options})
    model = model_file.build_model(recipe, FACTS).eval()
    file = folder / "checkpoints" / "best.pt"
    model_file.write_model(file, ModelInfo(recipe, FACTS, {}), model.state_dict())
    ids, real = ClipBpe.load().batch(TEXTS, 16)
    frames = torch.randint(0, 256, (4, 3, 64, 64, 3), dtype=torch.uint8)
    lengths = torch.tensor([3, 3, 2, 1])
    with torch.inference_mode():
        text = model.encode_text(
            {"text": torch.from_numpy(ids), "text_mask": torch.from_numpy(real)}
        )
        video = model.encode_video(
            {"frames": frames, "video_mask": torch.arange(3) < lengths[:, None]}
        )
    vectors = {
        "text": {k: v.float().numpy() for k, v in text.items()},
        "video": {k: v.float().numpy() for k, v in video.items()},
    }
    names = [f"clip{n}" for n in range(4)]
    gallery = results.Gallery(
        file_digest(file), "test", names, [f"{n}#0" for n in names], TEXTS, np.arange(4)
    )
    results.save(folder / "results", {}, {"target": np.arange(4)}, gallery, vectors)
    return file, folder / "results"
