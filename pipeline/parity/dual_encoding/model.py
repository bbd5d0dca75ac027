"""Handler of system "dual-encoding", kind "eval-forward", and what the handlers that run the model
share.
"""

from collections.abc import Generator, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from models.base import Assets, Encoding
from models.dual_encoding.model import DualEncoding, build, mix
from models.dual_encoding.options import Options
from models.dual_encoding.published import import_checkpoint
from models.dual_encoding.sequence import SequenceEncoder, Steps
from pipeline.checkpoints.archive import read_archive
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal


def eval_forward(case: Case) -> Iterator[Comparison]:
    """Yield every intermediate of a batch as published, and the encodings of items alone: batches
    of one, and masked.
    """
    name = case.info["checkpoint"].partition(":")[0]
    options, assets = yield from opened(case, name)
    batch = batch_of(case.inputs)
    ours = forward(build(options, assets).eval(), batch)
    alone = build(options.model_copy(update={"pooling": "masked"}), assets).eval()
    apart = _one_by_one(build(options, assets).eval(), batch)
    masked = _encodings(alone, batch)
    tolerance = Tolerance.parse(case.info["tolerance"])
    for key, expected in case.outputs.items():
        if key.startswith("alone_"):
            part = key.removeprefix("alone_")
            yield close(f"{key}[batches of one]", apart[part], expected, tolerance)
            yield close(f"{key}[masked pooling]", masked[part], expected, tolerance)
        elif key in ours:
            yield close(key, ours[key], expected, tolerance)


def opened(case: Case, name: str) -> Generator[Comparison, None, tuple[Options, Assets]]:
    """Yield rows on what the file says of itself; returns what `build` needs."""
    published = read_archive(case.path(name), published=True)
    args = dict(published["args"])
    vectors = args.pop("pretrained_weight", None)
    options, assets = import_checkpoint(published)
    yield equal("options", args, case.info["options"])
    yield equal("pretrained_weight", vectors is not None, case.info["pretrained_weight"])
    yield equal("word_embedding_dim", options.text.word_dim, case.info["word_embedding_dim"])
    return options, assets


def batch_of(inputs: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, Tensor]:
    """Recorded flat sequences as a padded batch."""
    features, video_mask = padded(inputs[f"{prefix}video_frames"], inputs[f"{prefix}video_lengths"])
    text, text_mask = padded(
        inputs[f"{prefix}caption_ids_flat"], inputs[f"{prefix}caption_lengths"]
    )
    batch = {"features": features, "video_mask": video_mask, "text": text, "text_mask": text_mask}
    labels = inputs.get(f"{prefix}tag_labels")
    return batch if labels is None else batch | {"tags": torch.from_numpy(labels)}


def padded(flat: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """Sequences (n, longest, ...) with zeros behind, and their mask (n, longest), from all steps in
    a row.
    """
    mask = np.arange(lengths.max()) < lengths[:, None]
    values = np.zeros((*mask.shape, *flat.shape[1:]), flat.dtype)
    values[mask] = flat
    return torch.from_numpy(values), torch.from_numpy(mask)


@torch.inference_mode()
def forward(model: DualEncoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every intermediate and score by its recorded name."""
    encodings = _encodings(model, batch)
    values = dict(encodings)
    hidden = _hidden(model, batch)
    for side, first in (
        ("video", batch["features"].shape[-1]),
        ("text", model.words.num_embeddings),
    ):
        widths = [first, getattr(model, side).width_gru, getattr(model, side).width_conv]
        names = ["level1_mean" if side == "video" else "level1_bow", "level2_gru", "level3_cnn"]
        levels = encodings[f"{side}_encoding"].split(widths, 1)
        values |= {f"{side}_{name}": level for name, level in zip(names, levels, strict=True)}
        values[f"{side}_gru_hidden"] = hidden[side]
        values[f"{side}_latent_raw"] = model.latent[side](encodings[f"{side}_encoding"])
        values[f"{side}_concept_logit"] = model.concept[side](encodings[f"{side}_encoding"])
    scores = model.score(_side(values, "text"), _side(values, "video"))
    alpha, scaling = model.options.alpha, model.options.scaling
    for space, score in scores.items():
        values[f"sim_{space}_v2t"] = score.T
        values[f"sim_{space}_v2t_scaled"] = mix(score, torch.zeros_like(score), 1.0, scaling).T
    values["sim_fused_v2t"] = mix(scores["latent"], scores["concept"], alpha, scaling).T
    return values


@torch.inference_mode()
def _encodings(model: DualEncoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """<side>_encoding before the heads, <side>_latent and <side>_concept as the encoders give
    them.
    """
    bag, rest = model.text_levels(batch["text"], batch["text_mask"])
    values = {
        "video_encoding": model.video_levels(batch["features"], batch["video_mask"]),
        "text_encoding": torch.cat([bag.dense(), rest], 1),
    }
    for side, encoding in (
        ("video", model.encode_video(batch)),
        ("text", model.encode_text(batch)),
    ):
        values |= {f"{side}_{name}": value for name, value in encoding.items()}
    return values


def _side(values: Mapping[str, Tensor], side: str) -> Encoding:
    return {name: values[f"{side}_{name}"] for name in ("latent", "concept")}


def _hidden(model: DualEncoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GRU outputs with zeros behind, (B, L, width)."""
    steps = {
        side: Steps.of(batch[f"{side}_mask"], getattr(model, side).kernels, True)
        for side in ("video", "text")
    }
    rows = {
        "video": batch["features"].flatten(0, 1)[steps["video"].source],
        "text": model.words(batch["text"].flatten()[steps["text"].source]),
    }
    return {side: _unpacked(getattr(model, side), rows[side], steps[side]) for side in rows}


def _unpacked(encoder: SequenceEncoder, rows: Tensor, steps: Steps) -> Tensor:
    packed = PackedSequence(encoder.hidden(rows, steps), steps.batch_sizes)
    return steps.restore(pad_packed_sequence(packed, batch_first=True)[0])


def _one_by_one(model: DualEncoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`_encodings` of batches of one, without any padding."""
    found: dict[str, list[Tensor]] = {}
    pairs = max(len(batch["video_mask"]), len(batch["text_mask"]))
    for i in range(pairs):  # the last video or text stands in where there are fewer of them
        one = {k: v[min(i, len(v) - 1)][None] for k, v in batch.items()}
        one = {k: v[:, one[_MASK[k]][0]] for k, v in one.items() if k in _MASK}
        for name, value in _encodings(model, one).items():
            if i < len(batch[f"{name.partition('_')[0]}_mask"]):
                found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


_MASK = {
    "features": "video_mask",
    "video_mask": "video_mask",
    "text": "text_mask",
    "text_mask": "text_mask",
}


HANDLERS = {"eval-forward": eval_forward}
