"""Every system, small and untrained, with a few texts and videos encoded: what search has to
rank.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, Fusion, RetrievalModel
from models.parts.noise import KeyedNoise, keys
from pipeline.checkpoints import model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.core.files import file_digest
from pipeline.evaluation import results
from pipeline.evaluation.encode import text_keys
from pipeline.evaluation.retrieve import Encoded, rankings
from pipeline.recipes.recipe import parse

TINY = {"backbone": "tiny", "words": 12, "frames": 3}
SMALL = {"rnn": 8, "kernels": [2], "channels": 8}
WORDS = "a dog man red runs cooks blue moves left".split()
TEXTS = ["a dog runs", "a man cooks", "red moves left", "blue dog moves", "a red man", "left"]
SYSTEMS = {
    "mean": ("centerclip", TINY | {"temporal": "mean"}),
    "tight": ("centerclip", TINY | {"temporal": "tight", "temporal_layers": 1}),
    "dgl": ("dgl", TINY | {"space": "transformer", "layers": 2}),
    "dp": ("drl", TINY | {"interaction": "dp", "temporal_layers": 1}),
    "ti": ("drl", TINY | {"interaction": "ti", "temporal_layers": 1, "cdcr": 0}),
    "wti": ("drl", TINY | {"interaction": "wti", "temporal_layers": 1}),
    "xti": ("drl", TINY | {"interaction": "xti", "temporal_layers": 1, "cdcr": 0}),
    "diffusion": (
        "diffusion_ret",
        TINY | {"stage": "generation", "temporal_layers": 1, "t2v_candidates": 4, "negatives": 2},
    ),
    "dual": ("dual_encoding", {"latent_dim": 8, "video": SMALL, "text": SMALL | {"word_dim": 6}}),
    "hybrid": (
        "hybrid_space",
        {"latent_dim": 8, "video": SMALL, "text": SMALL | {"word_dim": 6}},
    ),
}


@dataclass(frozen=True)
class System:
    """A model, its checkpoint, what `evaluate` would have left, and the scores of all pairs."""

    model: RetrievalModel
    info: ModelInfo
    checkpoint: Path
    results: Path
    video: Encoding
    t2v: np.ndarray
    statistics: dict[str, float]

    @property
    def video_ids(self) -> list[str]:
        return results.read_gallery(self.results).video_ids


def checkpoint(folder: Path, name: str) -> tuple[RetrievalModel, ModelInfo, Path]:
    """A system with first weights, saved as training saves it."""
    kind, options = SYSTEMS[name]
    torch.manual_seed(0)
    recipe = parse(
        {"name": name, "model": kind, "options": options, "train": {"optimizer": {"lr": 1.0e-4}}}
    )
    reads_words = kind in ("dual_encoding", "hybrid_space")
    special = ["<pad>", "<start>", "<end>", "<unk>"]
    facts = {
        "feature_dim": 5 if reads_words else 0,
        "vocabulary": {w: n for n, w in enumerate([*special, *WORDS])} if reads_words else {},
        "tags": WORDS[:4] if reads_words else [],
        "word_dim": None,
        "inputs": {},
    }
    start = None
    if name == "diffusion":
        plain = parse(recipe.resolve() | {"options": options | {"stage": "discrimination"}})
        start = model_file.build_model(plain, facts).state_dict()
    model = model_file.build_model(recipe, facts, init=start, is_start=start is not None).eval()
    file = folder / "checkpoints" / "best.pt"
    model_file.write_model(file, ModelInfo(recipe, facts, {}), model.state_dict())
    return model, model_file.load_model(file)[1], file


def make(folder: Path, name: str, n_videos: int = 7) -> System:
    """A system with an evaluation of TEXTS and n_videos random videos."""
    model, info, file = checkpoint(folder, name)
    sentences = info.text_encoder.sentences(TEXTS)
    rows = np.arange(len(TEXTS))
    video_ids = [f"clip{n}" for n in range(n_videos)]
    with torch.inference_mode():
        text = model.encode_text(sentences.batch(rows), model.prepare())
        video = model.encode_video(videos(model, n_videos), model.prepare())
    text, video = ({k: v.float() for k, v in side.items()} for side in (text, video))
    known = text_keys(sentences, rows)
    encoded = Encoded(text, video, rows, known, keys(video_ids))
    statistics = model.statistics(model.score(text, video))
    t2v, _ = rankings(model, encoded, how=Fusion(KeyedNoise(0, known, keys(video_ids))))
    gallery = results.Gallery(
        file_digest(file), "test", video_ids, [f"{n}" for n in rows], TEXTS, rows,
        known.tolist(), statistics,
    )  # fmt: skip
    results.save(folder / "results", {}, {"target": rows}, gallery, encoded.vectors)
    return System(model, info, file, folder / "results", video, t2v, statistics)


def videos(model: RetrievalModel, n: int) -> dict[str, torch.Tensor]:
    """A batch of random videos, some of them shorter than others."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([3, 2, 1] * n)[:n]
    real = torch.arange(3) < lengths[:, None]
    if model.inputs.video == "features":
        features = torch.rand(n, 3, 5, generator=generator) * real[..., None]
        return {"features": features, "video_mask": real}
    size = model.inputs.size
    frames = torch.randint(0, 256, (n, 3, size, size, 3), dtype=torch.uint8, generator=generator)
    return {"frames": frames, "video_mask": real}
