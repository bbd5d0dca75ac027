"""Handlers of system "drl" for the whole model: recorded forward passes, losses, gradients and
training steps; and where the parameters of a new model come from.

Padded frames are encoded for the rows that show them (the model itself encodes none): a plain path
beside the fast one.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.base import Assets, Encoding
from models.clip.published import import_weights
from models.drl.model import Drl, build
from models.drl.options import Options
from models.drl.published import import_checkpoint, published_names
from pipeline.checkpoints.archive import read_archive
from pipeline.feeding.loader import Batch
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.processes import World
from pipeline.recipes.options import TrainOptions
from pipeline.training.schedule import Schedule
from pipeline.training.step import Stepper

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_AGGREGATIONS = {"None": "none", "seqLSTM": "seqLSTM", "seqTransf": "seqTransf"}
_SCHEDULES = {
    "warmup_cosine": "bert_cosine",
    "warmup_linear": "linear",
    "warmup_constant": "constant",
}
_SIZES = {  # ours: theirs
    "embed": "embed_dim",
    "pixels": "image_resolution",
    "context": "context_length",
    "vocabulary": "vocab_size",
    "vision_layers": "vision_layers",
    "vision_width": "vision_width",
    "patch": "vision_patch_size",
    "text_width": "text_width",
    "text_layers": "text_layers",
}


def full_model(case: Case) -> Iterator[Comparison]:
    """Pixels and ids to every intermediate, both losses, all gradient norms and three steps of the
    training loop.
    """
    batch = batch_of(case.inputs)
    model = opened(case, batch)
    yield equal(
        "options.agg_module",
        model.options.aggregation,
        _AGGREGATIONS[case.info["options"]["agg_module"]],
    )
    ours = {name: getattr(model.clip.sizes, field) for field, name in _SIZES.items()}
    yield equal("clip_dims", ours, case.info["clip_dims"])
    values = (
        features(model, batch)
        | similarities(model, batch)
        | losses(model, batch)
        | _gradients(case, model, batch)
    )
    values |= _steps(case, model, batch)
    for name, expected in case.outputs.items():
        yield close(name, values[name], expected, _tolerance_of(case, name))


def initialisation(case: Case) -> Iterator[Comparison]:
    """Yield which parameters come from which of CLIP's tensors, which are drawn and which are
    constant.
    """
    weights = import_weights(read_archive(case.path(case.info["checkpoint"].partition(":")[0])))
    context = len(weights["positional_embedding"])  # the published constructor reads no text
    shortest = {"words": min(Options().words, context), "frames": min(Options().frames, context)}
    options = options_of(case.info["options"], backbone="given", **shortest)
    state = build(options, Assets(clip=weights)).state_dict()
    named = published_names(options, state)
    yield equal(
        "state_keys",
        {name: list(v.shape) for name, v in sorted(named.items())},
        _sorted(case, "state_keys"),
    )
    norms = [named[name].double().norm() for name in case.info["fixed"]]
    yield close(
        "fixed_norm",
        norms,
        case.outputs["fixed_norm"],
        tolerance(case.info["tolerance"]["fixed_norm"]),
    )
    deviations = [float(named[name].std()) for name in case.info["random"]]
    few = np.array([named[name].numel() <= 500 for name in case.info["random"]])
    recorded = case.outputs["random_std"]
    # in words: "statistical, within 20 % for tensors with more than 500 elements"
    yield close("random_std", np.where(few, recorded, deviations), recorded, Tolerance(0.0, 0.2))
    for name, source in case.info["copied_from_clip"].items():
        yield close(f"copied_from_clip[{name}]", named[name], weights[source].float(), EXACT)
    for name, value in case.info["constant"].items():
        yield close(f"constant[{name}]", named[name], torch.full_like(named[name], value), EXACT)


def _sorted(case: Case, key: str) -> dict:
    return dict(sorted(case.info[key].items()))


def opened(case: Case, batch: Mapping[str, Tensor], file: str = "") -> Drl:
    """Return the recorded model in eval mode, its dropout off; words and frames as many as the
    recorded batch has.
    """
    found, assets = import_checkpoint(
        read_archive(case.path(file or case.info["checkpoint"].partition(":")[0]))
    )
    sizes = {"words": batch["text"].shape[1], "frames": batch["video_mask"].shape[1]}
    options = options_of(
        case.info["options"], **found.model_dump(include={"backbone", "temporal_layers"}), **sizes
    )
    model = build(options, assets).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def options_of(recorded: Mapping[str, object], **others: object) -> Options:
    """Options from the published names of a case; null and words ("ignored by xti") mean the
    default.
    """
    values: dict[str, object] = {"interaction": recorded["interaction"]} | others
    if recorded.get("agg_module") is not None:
        values["aggregation"] = _AGGREGATIONS[recorded["agg_module"]]
    names = ("wti_arch", "cdcr", "cdcr_alpha1", "cdcr_alpha2", "cdcr_lambda")
    values |= {
        name: recorded[name] for name in names if isinstance(recorded.get(name), (int, float))
    }
    if "cross_num_hidden_layers" in recorded:
        values["cross_layers"] = recorded["cross_num_hidden_layers"]
    return Options.model_validate(values)


def batch_of(inputs: Mapping[str, np.ndarray], rows: slice = slice(None)) -> dict[str, Tensor]:
    """Recorded arrays as a batch; pixels are normalised already, and draws are the recorded ones.

    Siblings deliver texts (B, 1, L), videos (B, 1, T, 1, 3, H, W) and masks (B, 1, T).
    """
    texts, videos = inputs["text_ids"][rows], inputs["video_mask"][rows]
    frames = inputs["video"][rows].astype(np.float32)
    video_mask = videos.reshape(-1, videos.shape[-1])  # (B, T)
    draws = {
        f"{side}_draw": torch.from_numpy(inputs[f"cdcr1_{side}_draw"][rows])
        for side in ("text", "video")
        if f"cdcr1_{side}_draw" in inputs
    }
    return draws | {
        "text": torch.from_numpy(texts.reshape(-1, texts.shape[-1])),
        "text_mask": torch.from_numpy(inputs["text_mask"][rows].reshape(-1, texts.shape[-1]) > 0),
        "frames": torch.from_numpy(frames.reshape(*video_mask.shape, *frames.shape[-3:])),
        "video_mask": torch.from_numpy(video_mask > 0),
    }


@torch.no_grad()
def features(model: Drl, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every recorded intermediate, padding included."""
    real = batch["video_mask"]
    frames = model.clip.visual(batch["frames"].flatten(0, 1)).unflatten(0, real.shape)
    words = model.clip.encode_words(batch["text"])
    values = {
        "frame_feat": frames,
        "video_feat": model.temporal(frames, real),
        "text_feat": words,
        "text_eot_feat": words[torch.arange(len(words)), batch["text_mask"].sum(1) - 1],
    }
    text, video = model.eval().encode_text(batch), model.encode_video(batch)
    if "weight" in text:
        values |= {"text_weight": text["weight"], "video_weight": video["weight"]}
    return values


@torch.no_grad()
def similarities(model: Drl, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the fast path of evaluation, and the logits of training."""
    scores = model.eval().score(model.encode_text(batch), model.encode_video(batch))["similarity"]
    t2v, v2t, *_ = model.train().logits(*encodings(model, batch))
    return {
        "eval_t2v": scores,
        "eval_v2t": scores.T,
        "train_t2v_logits": t2v,
        "train_v2t_logits": v2t,
    }


def encodings(model: Drl, batch: Mapping[str, Tensor]) -> tuple[Encoding, Encoding]:
    return model.encode_text(batch), model.encode_video(batch)


def losses(model: Drl, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss terms by their recorded names."""
    return loss_names(model, model.train()(batch))


def loss_names(model: Drl, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `loss` gives, by the recorded names, without gradients."""
    terms = {name: value.detach() for name, value in terms.items()}
    return {
        "sim_loss_t2v": terms["t2v"],
        "sim_loss_v2t": terms["v2t"],
        "sim_loss": (terms["t2v"] + terms["v2t"]) / 2,
        "cdcr_loss": terms.get("cdcr", torch.zeros(())),
        "loss": terms["loss"],
    }


def gradient_norms(model: Drl, names: list[str]) -> list[float]:
    """Norms of the gradients by published names; -1 for none."""
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    named = published_names(model.options, grads)
    return [float(named[name].double().norm()) if name in named else -1.0 for name in names]


def _gradients(case: Case, model: Drl, batch: Mapping[str, Tensor]) -> dict[str, object]:
    model.zero_grad()
    model.train()(batch)["loss"].backward()
    norms = gradient_norms(model, case.info["param_names"])
    return {
        "grad_norm": norms,
        "total_grad_norm": np.sqrt(np.sum(np.square([norm for norm in norms if norm >= 0]))),
        "grad_logit_scale": model.clip.logit_scale.grad.clone(),
    }


def _steps(case: Case, model: Drl, batch: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the recorded steps by the trainer's own step: groups, double clipping, BertAdam,
    schedule, clamp.
    """
    recorded = case.info["optimizer"]
    options = train_options(recorded)
    stepper = Stepper(model, model, options, torch.device("cpu"), World())
    schedule = Schedule(
        options.schedule, lr=options.optimizer.lr, horizon_steps=recorded["t_total"], tie="last"
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: list[float] = []
    scales = []
    for step in range(recorded["steps"]):
        result = stepper(iter([Batch(dict(batch), [])]), 1, schedule.lr(step))
        found.append(result.terms["loss"])
        scales.append(float(model.clip.logit_scale.detach()))
    after = dict(model.named_parameters())
    moved = {name: after[name].detach() - value for name, value in before.items()}
    names = case.info["param_names"]
    return {
        "step_losses": found,
        "step_logit_scale": scales,
        "param_norm_after": _norms(model, after, names),
        "param_delta_norm": _norms(model, moved, names),
    }


def _norms(model: Drl, values: Mapping[str, Tensor], names: list[str]) -> list[float]:
    named = published_names(model.options, values)
    return [float(named[name].detach().double().norm()) for name in names]


def train_options(recorded: Mapping[str, object]) -> TrainOptions:
    """Return the published loop with the recorded numbers."""
    warmup = recorded["warmup_proportion"]
    return TrainOptions.model_validate(
        {
            "precision": "float32",
            "optimizer": {
                "name": "bertadam",
                "lr": recorded["lr"],
                "betas": [recorded["b1"], recorded["b2"]],
                "eps": recorded["e"],
                "weight_decay": recorded["weight_decay"],
                "clip_per_tensor": recorded["max_grad_norm"],
            },
            "schedule": {
                "name": _SCHEDULES[recorded["schedule"]],
                "warmup": warmup,
            },
            "params": [
                {"match": r"^clip\.", "lr_scale": recorded["coef_lr"]},
                {"match": "bias", "weight_decay": 0.0},
            ],
            "grad_clip": recorded["max_grad_norm"],
        }
    )


def tolerance(words: str) -> Tolerance:
    """ "rtol 1e-3, atol 1e-6", "atol 1e-4 + rtol 1e-4" and the like; what is not named is 0."""
    found = {kind: re.search(rf"{kind} {_NUMBER}", words) for kind in ("atol", "rtol")}
    absolute = float(found["atol"][1]) if found["atol"] else 0.0
    relative = float(found["rtol"][1]) if found["rtol"] else 0.0
    return Tolerance(absolute, relative)


def _tolerance_of(case: Case, name: str) -> Tolerance:
    stated = case.info["tolerance"]
    kind = "logits" if name.endswith("logits") else "grad_norm" if "grad" in name else name
    return tolerance(stated.get(kind, stated["default"]))


HANDLERS = {"full_model": full_model, "initialisation_from_clip": initialisation}
