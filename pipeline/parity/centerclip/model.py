"""Handlers of system "centerclip" that run the model: kinds "forward", "deep-cluster" and
"initialisation".

Also what the other handlers of the system share: opening a file with its options, batches,
intermediates by recorded name. Clusterings are recorded segment position by segment position, ours
video by video: rows are put in their order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Assets
from models.centerclip.model import CenterCLIP, build
from models.centerclip.options import Options
from models.centerclip.published import import_checkpoint, published_names, rename, state_of
from models.centerclip.published_settings import freeze_rule, recipe
from models.centerclip.reduction import Clustered
from models.centerclip.tokens import segment_tokens
from models.clip.towers import end_row
from pipeline.checkpoints import clip_weights
from pipeline.checkpoints.archive import read_archive
from pipeline.evaluation.metrics import count, count_v2t, summary
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, close_tree, equal
from pipeline.recipes.freeze import freeze
from pipeline.recipes.options import FreezeOptions

_LOSSES = {"train_loss": "loss", "train_sim_loss": "similarity", "train_cluster_loss": "cluster"}
_SIZES = {
    "embed_dim": "embed",
    "image": "pixels",
    "patch": "patch",
    "vw": "vision_width",
    "vl": "vision_layers",
    "tw": "text_width",
    "tl": "text_layers",
    "vocab": "vocabulary",
    "ctx": "context",
}
_METRICS = {"R1": "R1", "R5": "R5", "R10": "R10", "MR": "MdR", "MedianR": "MdR", "MeanR": "MnR"}

Batch = dict[str, Tensor]


def forward(case: Case) -> Iterator[Comparison]:
    """Yield a published checkpoint: every intermediate, similarities, losses, gradients; an
    evaluation if there is one.
    """
    model, _ = yield from opened(case)
    yield from model_rows(case, model)
    if "eval" in case.info:
        yield from _evaluation(case, model)


def initialisation(case: Case) -> Iterator[Comparison]:
    """Yield a model that starts from a plain CLIP file: every first weight, then as `forward`."""
    settings = case.info["options"]
    options = Options.model_validate(recipe(on_cpu(settings))["options"] | {"backbone": "given"})
    name = case.info["checkpoint_file"].partition(":")[0]
    model = build(options, Assets(clip=clip_weights.read(case.path(name))))
    named = published_names(options, model.state_dict())
    yield equal("init_param_names", list(named), case.info["init_param_names"])
    tolerance = _tolerance(case)
    meaning = case.info["init_param_l2 / init_param_sum"]
    yield equal("init_param_l2 / init_param_sum", "float64" in meaning, True)
    values = [value.double() for value in named.values()]
    yield close(
        "init_param_l2", [float(v.norm()) for v in values], case.outputs["init_param_l2"], tolerance
    )
    yield close(
        "init_param_sum",
        [float(v.sum()) for v in values],
        case.outputs["init_param_sum"],
        tolerance,
    )
    yield equal("state_dict_prefix", "", case.info["state_dict_prefix"])
    yield from model_rows(case, model)


def opened(case: Case) -> Iterator[Comparison]:
    """Yield rows on the file; returns the model it holds and the file's content."""
    name = (
        case.info["checkpoint_file"].split()[0]
        if "checkpoint_file" in case.info
        else "checkpoint.pth.tar"
    )
    published = read_archive(case.path(name), published=True)
    options, assets = import_checkpoint(published, on_cpu(case.info["options"]))
    model = build(options, assets)
    named = published_names(options, model.state_dict())
    if "state_dict_prefix" in case.info:
        prefix = case.info["state_dict_prefix"]
        yield equal(
            "state_dict_prefix",
            [n for n in published["state_dict"] if not n.startswith(prefix)],
            [],
        )
    same = [
        n for n, value in state_of(published).items() if n in named and torch.equal(named[n], value)
    ]
    yield equal(
        "checkpoint_file[names, order and values written back]", same, list(state_of(published))
    )
    return model, published


def model_rows(case: Case, model: CenterCLIP) -> Iterator[Comparison]:
    """Yield rows for the sizes, what is frozen, and every array that a forward and a backward pass
    make.
    """
    sizes = asdict(model.clip.sizes)
    if "clip_dims" in case.info:
        wanted = {name: value for name, value in case.info["clip_dims"].items() if name in _SIZES}
        yield equal("clip_dims", {name: sizes[_SIZES[name]] for name in wanted}, wanted)
    batch, tolerance = batch_of(case.inputs), _tolerance(case)
    ours = intermediates(model.eval(), batch)
    if case.info["options"].get("pre_visual_pooling"):  # evaluation returns what is pooled at once
        ours["visual_output"] = ours["video_feature_pooled"]
    if "train_loss" in case.outputs:
        frozen = freeze_as_published(model, case)
        yield equal("frozen_params", frozen, case.info["frozen_params"])
        ours |= _training(model, batch, case)
    for name, expected in case.outputs.items():
        if name in ours:
            exact = np.issubdtype(expected.dtype, np.integer)
            allowed = _of_gradient(tolerance) if name.startswith("grad_") else tolerance
            yield close(name, ours[name], expected, EXACT if exact else allowed)


def batch_of(inputs: Mapping[str, np.ndarray], prefix: str = "", index: int | None = None) -> Batch:
    """Recorded inputs as a batch; index: of the step, where the first axis counts steps."""
    ids = torch.from_numpy(inputs[prefix + "input_ids"])
    mask = torch.from_numpy(inputs[prefix + "attention_mask"])
    video = torch.from_numpy(inputs[prefix + "video"])
    video_mask = torch.from_numpy(inputs[prefix + "video_mask"])
    if index is not None:
        ids = ids[index]
        mask = mask[index]
        video = video[index]
        video_mask = video_mask[index]
    batch = {
        "text": ids,
        "text_mask": mask > 0,
        "frames": video[:, 0],
        "video_mask": video_mask[:, 0] > 0,
    }
    return batch | {"video_index": torch.arange(len(video))}


@torch.no_grad()
def intermediates(model: CenterCLIP, batch: Batch) -> dict[str, Tensor]:
    """Return every value of a forward pass by its recorded name."""
    videos, mask = len(batch["frames"]), batch["video_mask"]
    with Watch(model, videos) as watch:
        frames = model.encode_frames(batch["frames"], mask)
    words = model.clip.encode_words(batch["text"])
    text, video = model.encode_text(batch), model.encode_video(batch)
    segments = frames.shape[1]
    kept = mask[:, mask.shape[1] // segments - 1 :: mask.shape[1] // segments]
    return watch.values | {
        "text_token_features": words,
        "sentence_feature": end_row(batch["text"], words),
        "visual_ln_pre_frame0": model.embed(batch["frames"], mask)[0],
        "visual_output": frames,
        "video_mask_after_cluster": kept.long(),
        "video_feature_pooled": video["feature"],
        "similarity_t2v": model.scale * model.score(text, video)["similarity"],
    }


class Watch:
    """Keeps what goes into and comes out of the modules in front of blocks, and their clusters, by
    recorded name.
    """

    def __init__(self, model: CenterCLIP, videos: int):
        self._modules, self._videos, self._hooks = model.reduce, videos, []
        self.values: dict[str, Tensor] = {}

    def __enter__(self) -> "Watch":
        for block, module in enumerate(self._modules, 1):
            if not isinstance(module, nn.Identity):
                self._hooks.append(module.register_forward_hook(self._hook(block)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, block: int):
        def keep(module: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
            again = "_second_call" if f"block{block}_cluster_input" in self.values else ""
            self.values[f"block{block}_cluster_input{again}"] = given[0].transpose(0, 1)
            self.values[f"block{block}_cluster_output{again}"] = made.transpose(0, 1)
            if isinstance(module, Clustered):
                clusters = module.choose(segment_tokens(given[0], module.length))
                self.values[f"block{block}_medoids"] = by_position(clusters.medoids, self._videos)
                self.values[f"block{block}_assign"] = by_position(clusters.assign, self._videos)

        return keep


def by_position(rows: Tensor, videos: int) -> Tensor:
    """Return rows of the segments of one video after the other, as first segments of all videos,
    then second ones, ...
    """
    return rows.unflatten(0, (videos, -1)).transpose(0, 1).flatten(0, 1)


def on_cpu(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a case as its program ran them without a GPU: fp16 is float32 there."""
    return dict(settings) | ({"precision": "fp32"} if settings.get("precision") == "fp16" else {})


def freeze_as_published(model: CenterCLIP, case: Case) -> list[str]:
    """Freeze what the options of the case freeze; the published names of it."""
    settings = case.info["options"]
    if rule := freeze_rule(settings["freeze_layer_num"], settings["linear_patch"]):
        freeze(model, FreezeOptions.model_validate(rule))
    still = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return list(rename(model.options, still))


def _training(model: CenterCLIP, batch: Batch, case: Case) -> dict[str, Tensor]:
    """Losses and gradient norms of one training step."""
    terms = model.train()(batch)
    terms["loss"].backward()
    ours = {name: terms.get(key, torch.zeros(())).detach() for name, key in _LOSSES.items()}
    grads = rename(
        model.options, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    )
    ours["grad_l2"] = torch.stack([grads[name].norm() for name in case.info["grad_names"]])
    ours["grad_global_l2"] = torch.stack([grad.norm() for grad in grads.values()]).norm()
    return ours


@torch.no_grad()
def _evaluation(case: Case, model: CenterCLIP) -> Iterator[Comparison]:
    """Several captions per video: similarities and metrics, and in batches of the recorded size the
    same.
    """
    recorded, owner = case.info["eval"], case.inputs["eval_caption_owner"]
    batch = {
        k: torch.from_numpy(case.inputs[f"eval_{k}"]) for k in ("input_ids", "video", "video_mask")
    }
    model.eval()
    text = torch.cat(
        [
            model.encode_text({"text": ids})["feature"]
            for ids in batch["input_ids"].split(recorded["batch_size_val"])
        ]
    )
    video = model.encode_video(
        {"frames": batch["video"][:, 0], "video_mask": batch["video_mask"][:, 0] > 0}
    )
    scores = (model.scale * model.score({"feature": text}, video)["similarity"]).numpy()
    yield close("eval_similarity", scores, case.outputs["eval_similarity"], _tolerance(case))
    yield equal("eval.cut_off_points", np.cumsum(np.bincount(owner)), recorded["cut_off_points"])
    yield from metric_rows("eval.metrics", scores, owner, recorded["metrics"])


def metric_rows(
    name: str, scores: np.ndarray, owner: np.ndarray, wanted: Mapping[str, dict]
) -> Iterator[Comparison]:
    """Metrics of captions (rows) that belong to videos `owner`, as CLIP4Clip counts them: v2t over
    groups.
    """
    t2v, v2t = count(scores, owner), count_v2t(scores.T, owner, "groups")[0]
    ranks = {"t2v": t2v.ranks("pessimistic"), "v2t": v2t.ranks("expanded")}
    ours = {
        side: published_metrics(ranks[side], "lower" if side == "t2v" else "mean") for side in ranks
    }
    for side in ("t2v", "v2t"):
        yield from close_tree(f"{name}.{side}", ours[side], wanted[side], Tolerance(1e-5))


def published_metrics(ranks: np.ndarray, median: str = "mean") -> dict[str, object]:
    """Zero-based ranks as the published names of metrics."""
    values = summary(ranks, median=median)
    named = {theirs: values[ours] for theirs, ours in _METRICS.items()}
    return named | {"Std_Rank": float(np.std(ranks)), "cols": ranks}


def _of_gradient(stated: Tolerance) -> Tolerance:
    """Norms reach 20,000 (deep clusters), where float32 numbers are 0.002 apart: four such steps
    may be between.
    """
    return Tolerance(stated.absolute, 4 * float(np.finfo(np.float32).eps))


def _tolerance(case: Case) -> Tolerance:
    return Tolerance(case.info["tolerance"]["default_max_abs_diff"])


HANDLERS = {"forward": forward, "deep-cluster": forward, "initialisation": initialisation}
