"""The ancestor of Dual Encoding++ in plain loops, with its published padding: what
models/hybrid_space/model.py must equal.

Source: docs/specs/dual-encoding.md, section 11.1; danieljf24/hybrid_space: model.py, loss.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hybrid_space.model import HybridSpace


def scores(model: HybridSpace, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores (n_t, n_v) of each space, item by item, from the batch as the model gets it."""
    o, (frames, words) = (
        model.options,
        (batch[f"{side}_mask"].sum(1).tolist() for side in ("video", "text")),
    )
    limit = o.video.max_frames
    outputs = model.video.gru(batch["features"][:, :limit].transpose(0, 1))[0].transpose(
        0, 1
    )  # over padding too
    seen = batch["features"][:, :limit].shape[1]
    videos, texts = [], []
    for n, length in enumerate(frames):
        kept = min(length, limit)
        hidden = F.pad(outputs[n, :kept], (0, 0, 0, seen - kept))
        videos.append(
            _levels(model.video, hidden, kept, o.gru_pool, batch["features"][n, :length].mean(0))
        )
    for n, length in enumerate(words):
        ids = batch["text"][n, :length].tolist()
        hidden = model.text.gru(model.words(torch.tensor([1, *ids, 2]))[:, None])[0][:, 0]
        bag = torch.tensor(
            [float(ids.count(word)) for word in range(4, model.words.num_embeddings)]
        )
        hidden = F.pad(hidden, (0, 0, 0, max(words) - length))
        texts.append(_levels(model.text, hidden, length + 2, o.gru_pool, bag))
    return _compared(model, torch.stack(texts), torch.stack(videos))


def _levels(side: nn.Module, hidden: Tensor, length: int, pool: str, first: Tensor) -> Tensor:
    """Return level 1, GRU and filters of one item; hidden (padded length, C) is 0 from `length`."""
    pooled = hidden[:length].mean(0) if pool == "mean" else hidden.max(0).values
    filters = []
    for conv in side.convs:
        margin = conv.weight.shape[2] - 1
        windows = F.pad(hidden.T[None], (margin, margin))
        filters.append(F.relu(F.conv1d(windows, conv.weight, conv.bias))[0].max(1).values)
    return torch.cat([first, pooled, *filters])


def _compared(model: HybridSpace, texts: Tensor, videos: Tensor) -> dict[str, Tensor]:
    o = model.options
    if o.levels == "reduced":
        texts, videos = texts[:, -model.text.width :], videos[:, -model.video.width :]
    a, b = model.latent["text"](texts), model.latent["video"](videos)
    a, b = (
        x / x.norm(dim=1, keepdim=True) if unit else x
        for x, unit in ((a, o.text_norm), (b, o.video_norm))
    )
    pair = {
        "cosine": lambda s, v: s @ v,
        "order": lambda s, v: -(s - v).clamp(min=0).norm(),
        "euclidean": lambda s, v: -(s - v).square().sum(),
    }[o.measure]
    found = {"latent": torch.stack([torch.stack([pair(s, v) for v in b]) for s in a])}
    if o.space == "hybrid":
        p, q = (
            torch.sigmoid(model.concept["text"](texts)),
            torch.sigmoid(model.concept["video"](videos)),
        )
        found["concept"] = torch.minimum(p[:, None], q).sum(2) / torch.maximum(p[:, None], q).sum(2)
    return found
