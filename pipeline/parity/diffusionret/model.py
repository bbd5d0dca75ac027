"""Handlers of system "diffusionret" for the first stage: features, similarity, loss, gradients and
training steps; and what the handlers of the second stage share with it.

Padded frames and words are encoded and shown as recorded (a plain path); the model itself encodes
as few as it can.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.base import Assets
from models.clip.towers import end_row
from models.diffusion_ret.model import DiffusionRet, build
from models.diffusion_ret.options import Options
from models.diffusion_ret.published import import_checkpoint, published_names
from pipeline.checkpoints.archive import read_archive
from pipeline.feeding.loader import Batch
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.processes import World
from pipeline.recipes.freeze import freeze
from pipeline.recipes.options import TrainOptions
from pipeline.training.schedule import Schedule
from pipeline.training.step import Stepper

CHECKPOINT = "checkpoint.pth"
_NAMES = {  # ours: theirs
    "stage": "stage",
    "schedule": "noise_schedule",
    "diffusion_steps": "diffusion_steps",
    "negatives": "num",
    "clean_negative": "neg",
    "logit_factor": "d_temp",
    "frame_temperature": "temp",
    "t2v_candidates": "t2v_num",
    "v2t_candidates": "v2t_num",
    "t2v_factor": "t2v_temp",
    "v2t_factor": "v2t_temp",
    "t2v_alpha": "t2v_alpha",
    "v2t_alpha": "v2t_alpha",
    "temporal_layers": "num_hidden_layers",
    "interaction": "interaction",
}
_SIZES = {  # ours: theirs
    "vision_width": "vw",
    "vision_layers": "vl",
    "patch": "patch",
    "pixels": "res",
    "text_width": "tw",
    "text_layers": "tl",
    "vocabulary": "vocab",
    "context": "ctx",
    "embed": "embed",
}
_FREEZE = {
    "discrimination": {"match": r"^clip\.visual\.conv1\."},
    "generation": {"match": ".", "except": ["^denoise_"]},
}
_WHOLE_NORMS = {"step_grad_norm_total", "param_norms_before", "ema_norms_before"}
_NORM_ROUNDING = 1e-5  # as the cases state for param_norms_after
EMA_START = 0.9  # in words: "EMA copy starts at 0.9 * the checkpoint"


def discrimination(case: Case) -> Iterator[Comparison]:
    """Pixels and ids to every intermediate, the loss, its gradients and some steps of the training
    loop.
    """
    model = opened(case)
    yield from same_sizes(case, model)
    batch = batch_of(case.inputs)
    values = forward_values(model, batch)
    trained = TrainingCase(case, model, [batch] * case.info["training"]["steps"])
    yield trained.parameters_row()
    values |= trained.values
    for name, expected in case.outputs.items():
        yield close(name, values[name], expected, tolerance_of(case, name))


def same_sizes(case: Case, model: DiffusionRet) -> Iterator[Comparison]:
    """Yield what the file told about the model against what the case says."""
    recorded = case.info["clip_config"]
    yield equal(
        "clip_config",
        {name: getattr(model.clip.sizes, ours) for ours, name in _SIZES.items()},
        dict(recorded),
    )


def opened(case: Case, **changes: object) -> DiffusionRet:
    """Return the recorded model in eval mode, with the options in force."""
    case.info["checkpoint"]
    found, assets = import_checkpoint(read_archive(case.path(CHECKPOINT)))
    return made(case, found, assets, **changes)


def made(case: Case, found: Options, assets: Assets, **changes: object) -> DiffusionRet:
    """Return the model of what a file held, with the options in force; words and frames as many as
    the arrays have.
    """
    recorded = case.info["options"]
    values = {ours: recorded[theirs] for ours, theirs in _NAMES.items() if theirs in recorded}
    values["aggregation"] = {"None": "none", None: "none"}.get(
        recorded["agg_module"], recorded["agg_module"]
    )
    for ours, name in (("words", "text_mask"), ("frames", "video_mask")):
        if name in case.inputs:
            values[ours] = case.inputs[name].shape[-1]
    told = found.model_dump(
        include={"backbone", "stage", "aggregation", "temporal_layers"}, exclude_unset=True
    )
    for name, value in told.items():
        assert values.setdefault(name, value) == value, (
            f"{name}: the file says {value}, the case {values[name]}"
        )
    return build(Options.model_validate(values | changes), assets).eval()


def batch_of(
    inputs: Mapping[str, np.ndarray], rows: slice | list[int] = slice(None)
) -> dict[str, Tensor]:
    """Recorded arrays as a batch; pixels are normalised already.

    Some data sets deliver texts (B, 1, L), videos (B, 1, T, 1, 3, H, W) and masks (B, 1, T).
    """
    texts, videos = inputs["text_ids"][rows], inputs["video_mask"][rows]
    frames = inputs["video"][rows].astype(np.float32)
    video_mask = videos.reshape(-1, videos.shape[-1])  # (B, T)
    return {
        "text": torch.from_numpy(texts.reshape(-1, texts.shape[-1])),
        "text_mask": torch.from_numpy(inputs["text_mask"][rows].reshape(-1, texts.shape[-1]) > 0),
        "frames": torch.from_numpy(frames.reshape(*video_mask.shape, *frames.shape[-3:])),
        "video_mask": torch.from_numpy(video_mask > 0),
        "video_index": torch.from_numpy(inputs["idx"][rows]),
    }


@torch.no_grad()
def features(model: DiffusionRet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every recorded feature, padding included, and the similarity by the fast path of
    evaluation.
    """
    real = batch["video_mask"]
    frames = model.clip.visual(batch["frames"].flatten(0, 1)).unflatten(0, real.shape)
    words = model.clip.encode_words(batch["text"], batch["text_mask"])
    text, video = model.eval().encode_text(batch), model.encode_video(batch)
    return {
        "frame_features": frames,
        "text_token_features": words,
        "sentence_feature": end_row(batch["text"], words),
        "video_features": model.temporal(frames, real),
        "text_weight": text["weight"],
        "video_weight": video["weight"],
        "sim_t2v": model.score(text, video)["similarity"],
    }


def forward_values(model: DiffusionRet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every recorded feature and the discriminative losses, by the recorded names."""
    return features(model, batch) | _first_losses(model, batch)


@torch.no_grad()
def _first_losses(model: DiffusionRet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the discriminative losses, by the recorded names."""
    terms = model.train()(batch)
    both = (terms["t2v"] + terms["v2t"]) / 2
    return {"loss_t2v": terms["t2v"], "loss_v2t": terms["v2t"], "loss_discrimination": both}


class TrainingCase:
    """The recorded steps, one batch each, by the trainer's own step: groups, double clip, BertAdam,
    clamp, average.

    values: every recorded array about them. with_grad: published names of the parameters that had a
    gradient.
    """

    def __init__(self, case: Case, model: DiffusionRet, batches: list[dict[str, Tensor]]):
        self.case = case
        recorded, options = case.info["training"], train_options(case, model)
        freeze(model.train(), options.freeze)
        gradients = self._gradients(model, batches[0])
        self.with_grad = sorted(gradients)
        stepper = Stepper(model, model, options, torch.device("cpu"), World())
        for value in stepper.ema.weights.values():
            value.mul_(EMA_START)
        curve = Schedule(
            options.schedule, lr=options.optimizer.lr, horizon_steps=recorded["t_total"], tie="last"
        )
        before, ema_before = _copy(model.named_parameters()), _copy(stepper.ema.weights.items())
        results = [
            stepper(iter([Batch(batch, [])]), 1, curve.lr(step))
            for step, batch in enumerate(batches)
        ]
        after = _copy(model.named_parameters())
        ema = _copy((name, stepper.ema.weights[name]) for name in after)
        moved = {name: value - before[name] for name, value in after.items()}
        ema_moved = {name: value - ema_before[name] for name, value in ema.items()}
        ema_before = {name: ema_before[name] for name in after}
        names = recorded["delta_names"]
        self.values: dict[str, object] = {
            "step_losses": [_losses(result.terms) for result in results],
            "step_grad_norm_total": [result.grad_norm for result in results],
            "logit_scale_after": float(after["clip.logit_scale"]),
            "grad_norms": [float(gradients[name].norm()) for name in recorded["grad_names"]],
            "delta_norms": norms(moved, names),
            "param_norms_before": norms(before, names),
            "param_norms_after": norms(after, names),
            "ema_norms_before": norms(ema_before, names),
            "ema_delta_norms": norms(ema_moved, names),
        }
        whole = {"after": after, "ema_before": ema_before, "ema_after": ema}
        for kind, values in whole.items():
            named = published_names(values)
            self.values |= {f"{kind}/{name}": named[name] for name in recorded["full_arrays"]}

    def parameters_row(self) -> Comparison:
        """Return which parameters have a gradient, ours against those of the case."""
        recorded = sorted(self.case.info["training"]["params_with_grad"])
        return equal("training.params_with_grad", self.with_grad, recorded)

    @staticmethod
    def _gradients(model: DiffusionRet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By published names, before clipping."""
        model(batch)["loss"].backward()
        found = published_names(
            {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        )
        found = {name: value.double() for name, value in found.items()}
        model.zero_grad(set_to_none=True)
        return found


def _losses(terms: Mapping[str, float]) -> tuple[float, float, float]:
    """total, discriminative, generative."""
    generative = terms.get("denoise_t2v", 0.0) + terms.get("denoise_v2t", 0.0)
    return terms["loss"], (terms["t2v"] + terms["v2t"]) / 2, generative


def _copy(named: object) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named}


def norms(values: Mapping[str, Tensor], names: list[str]) -> list[float]:
    """Norms by published names."""
    named = published_names(values)
    return [float(named[name].detach().double().norm()) for name in names]


def train_options(case: Case, model: DiffusionRet) -> TrainOptions:
    """Return the published loop with the recorded numbers."""
    recorded = case.info["options"]
    rules: list[dict] = [{"match": "bias", "weight_decay": 0.0}]
    if not model.is_generative:
        rules.append({"match": r"^clip\.", "lr_scale": recorded["coef_lr"]})
    return TrainOptions.model_validate(
        {
            "precision": "float32",
            "optimizer": {
                "name": "bertadam", "lr": recorded["lr"], "betas": [0.9, 0.98], "eps": 1e-6,
                "weight_decay": recorded["weight_decay"], "clip_per_tensor": 1.0,
            },
            "schedule": {"name": "bert_cosine", "warmup": recorded["warmup_proportion"]},
            "params": rules,
            "freeze": _FREEZE[model.options.stage],
            "grad_clip": 1.0,
            "ema": {"moment": recorded["moment"]},
        }
    )  # fmt: skip


def tolerance_of(case: Case, name: str) -> Tolerance:
    """As the case states it: by name, by a family of names (`metrics_*`), else the default."""
    stated = case.info["tolerance"]
    if (
        name in _WHOLE_NORMS and name not in stated
    ):  # float32 sums over all numbers of a tensor, or of the model
        return Tolerance(Tolerance.parse(stated.get("default")).absolute, _NORM_ROUNDING)
    families = [key for key in stated if key.endswith("*") and name.startswith(key[:-1])]
    return Tolerance.parse(
        stated.get(name, stated[families[0]] if families else stated.get("default"))
    )


HANDLERS = {"discrimination": discrimination}
