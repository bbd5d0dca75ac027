"""Handler of system "dual-encoding", kind "hybrid-space-eval": checkpoints of the ancestor."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.dual_encoding.model import mean_over_time, mix
from models.hybrid_space.model import HybridSpace, build, with_boundaries
from models.hybrid_space.published import import_checkpoint, published_names
from pipeline.checkpoints.archive import read_archive
from pipeline.evaluation.metrics import count, mean_average_precision, summary
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.parity.dual_encoding.model import padded

_START_AND_END = 2


def hybrid_space(case: Case) -> Iterator[Comparison]:
    """Encodings, errors and metrics of a batch as published, and the losses and gradient norms of a
    training step.
    """
    published = read_archive(case.path(case.info["checkpoint"].partition(":")[0]), published=True)
    opt = {key: value for key, value in published["opt"].items() if key in case.info["options"]}
    yield equal("options", opt, case.info["options"])
    options, assets = import_checkpoint(published)
    tolerance = Tolerance.parse(case.info["tolerance"])
    batch = _batch(case)
    model = build(options, assets).eval()
    values = _inputs(model, batch) | _forward(model, batch) | _metrics(model, batch)
    model = build(options.model_copy(update={"dropout": 0.0}), assets).train()
    values |= {f"train/{name}": value for name, value in _step(model, batch).items()}
    for key, expected in case.outputs.items():
        if key in values:
            yield close(
                key, values[key], expected, EXACT if expected.dtype.kind == "i" else tolerance
            )


def _batch(case: Case) -> dict[str, Tensor]:
    """Return the batch longest caption first, as the published collate function sorts it;
    boundaries are the model's work.
    """
    order = np.argsort(-case.inputs["caption_lengths"], kind="stable")
    features, video_mask = padded(case.inputs["video_frames"], case.inputs["video_lengths"])
    captions, _ = padded(case.inputs["caption_indices_flat"], case.inputs["caption_lengths"])
    lengths = torch.from_numpy(case.inputs["caption_lengths"] - _START_AND_END)
    text_mask = torch.arange(int(lengths.max())) < lengths[:, None]
    text = captions[:, 1:-1].masked_fill(~text_mask, 0)
    bow = torch.from_numpy(case.inputs["bow"])
    tags = torch.from_numpy(case.inputs["tag_labels"])
    parts = {
        "features": features,
        "video_mask": video_mask,
        "text": text,
        "text_mask": text_mask,
        "bow": bow,
        "tags": tags,
    }
    return {name: value[order] for name, value in parts.items()} | {
        "order": torch.from_numpy(order)
    }


def _inputs(model: HybridSpace, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    limit = model.options.video.max_frames
    captions, mask = with_boundaries(batch["text"], batch["text_mask"])
    return {
        "batch_order": batch["order"],
        "frames_padded": batch["features"][:, :limit],
        "video_mean": mean_over_time(batch["features"], batch["video_mask"]),
        "video_lengths_clipped": batch["video_mask"].sum(1).clamp(max=limit),
        "captions_padded": captions,
        "caption_lengths_sorted": mask.sum(1),
    }


@torch.inference_mode()
def _forward(model: HybridSpace, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    bag, rest = model.text_levels(batch["text"], batch["text_mask"], batch["bow"])
    levels = model.video_levels(batch["features"], batch["video_mask"])
    first = levels.shape[1] - model.video.width
    values = {
        "video_encoding": torch.cat([levels[:, first:], levels[:, :first]], 1),
        "text_encoding": rest if bag is None else torch.cat([rest, bag.dense()], 1),
    }
    text, video = model.encode_text(batch), model.encode_video(batch)
    for side, encoding in (("text", text), ("video", video)):
        values |= {f"{side}_{name}": value for name, value in encoding.items()}
    scores = model.score(text, video)
    for space, score in scores.items():
        values[f"error_{space}_t2v"] = -score
        values[f"norm_error_{space}"] = -mix(score, torch.zeros_like(score), 1.0, "minmax")
    return values | {"fused_error_t2v": -model.fuse(scores, text, video).t2v}


@torch.inference_mode()
def _metrics(model: HybridSpace, batch: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Return [R@1, R@5, R@10, median rank, mean rank, mAP] of each direction; caption i belongs to
    video i.
    """
    text, video = model.encode_text(batch), model.encode_video(batch)
    ranking = model.fuse(model.score(text, video), text, video)
    found = {}
    for name, scores in (
        ("t2v_metrics", ranking.t2v.numpy()),
        ("v2t_metrics", ranking.v2t.numpy()),
    ):
        values = summary(count(scores, np.arange(len(scores))).ranks())
        precision = mean_average_precision(scores, np.arange(len(scores)))
        found[name] = [*(values[key] for key in ("R1", "R5", "R10", "MdR", "MnR")), precision]
    return found


def _step(model: HybridSpace, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    terms = model.loss(model.encode_text(batch), model.encode_video(batch), batch)
    terms["loss"].backward()
    values = {"loss_total": terms["loss"]}
    for space in ("latent", "concept"):
        values[f"loss_{space}"] = sum(
            value for name, value in terms.items() if name.startswith(f"{space}_")
        )
    for side in (side for side in ("video", "text") if f"tags_{side}" in terms):
        loss = model.options.loss
        rows = len(batch["text"]) if (loss.tag_cost or loss.cost) == "sum" else 1
        values[f"loss_bce_{side}"] = (
            terms[f"tags_{side}"] / rows
        )  # recorded before the total multiplies it
    grads = published_names(model.options, {name: p.grad for name, p in model.named_parameters()})
    norms = {f"gradnorm/{name}": grad.norm() for name, grad in grads.items()}
    return {name: torch.as_tensor(value).detach() for name, value in (values | norms).items()}


HANDLERS = {"hybrid-space-eval": hybrid_space}
