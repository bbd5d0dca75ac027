"""Handler of system "dgl", kind "model": a published checkpoint read, run, explained, trained for
one step and written.

The inside of sequences is compared on the plain form (parity/plain_dgl.py), everything that is an
output on the model itself. Steps are made by the trainer's own `Stepper`.
"""

import copy
import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.dgl import published
from models.dgl.model import Dgl, build
from pipeline.checkpoints.archive import read_archive
from pipeline.feeding.loader import Batch
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.processes import World
from pipeline.recipes.freeze import freeze
from pipeline.recipes.options import (
    FreezeOptions,
    OptimizerOptions,
    ParameterRule,
    ScheduleOptions,
    TrainOptions,
)
from pipeline.training.schedule import Schedule
from pipeline.training.step import Stepper
from reference import dgl

BACKBONE = r"^(clip|patches3d)\."
_LAYOUTS = {  # recorded maps, from ours (B, T, n, G, G)
    "attn/global_prompt_to_patches": ("global", lambda m: m.flatten(3).permute(0, 2, 3, 1)),
    "attn/cls_to_patches": ("class", lambda m: m.flatten(3)),
    "attn/frame_prompt0_to_patches": ("frame", lambda m: m[:, :, :1].flatten(3)),
}


def model_case(case: Case) -> Iterator[Comparison]:
    """Everything about one recorded model."""
    settings = case.info["options"]
    file = read_archive(case.path(case.info["checkpoint"]["file"]), published=True)
    model = opened(file, settings)
    yield from _file(case, file, model)
    ids = torch.from_numpy(case.inputs["input_ids"])
    frames = torch.from_numpy(case.inputs["video"])
    with torch.no_grad():
        yield from _features(case, model, ids, frames)
        yield from _inside(case, dgl.text(model, ids) | dgl.video(model, frames))
        yield from _maps(case, model, frames)
    batch = {"text": ids, "frames": frames}
    yield from _gradients(case, file, copy.deepcopy(model), batch)
    for name, state in (("fresh", {}), ("resumed", published.optimizer_state(file))):
        if state or name == "fresh":
            yield from _step(case, copy.deepcopy(model), batch, name, state)
    if not published.optimizer_state(file):
        yield equal("train[resumed]", None, case.info["train"]["lr_new_modules_used_resumed"])


def opened(
    file: Mapping[str, object], settings: Mapping[str, object], feature: str | None = None
) -> Dgl:
    """Return the model of a recorded checkpoint: what the file tells, and from the settings what it
    does not.
    """
    options, assets = published.import_checkpoint(file, text_prompts=settings["text_prompt_length"])
    told = {
        "text_prompts": settings["text_prompt_length"],
        "frames": settings["max_frames"],
        "words": settings["max_words"],
        "feature": feature or settings["visual_output_type"],
    }
    return build(type(options).model_validate(options.model_dump() | told), assets).eval()


def train_options(settings: Mapping[str, object]) -> TrainOptions:
    """Return the published options of a run as ours."""
    is_adamw = settings["optim"] == "AdamW"
    rules = [ParameterRule(match="bias", weight_decay=0.0)]
    if not settings["freeze_clip"]:
        rules.append(ParameterRule(match=BACKBONE, lr_scale=settings["coef_lr"]))
    return TrainOptions(
        precision="float32",
        optimizer=OptimizerOptions(
            name="adamw" if is_adamw else "bertadam",
            lr=settings["lr"],
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["eps"],
            weight_decay=settings["wd"],
            clip_per_tensor=None if is_adamw else 1.0,
        ),
        params=rules,
        freeze=FreezeOptions(match=BACKBONE) if settings["freeze_clip"] else None,
        grad_clip=settings["clip_grad_norm"],
        temperature={"min": 0.1, "max": 4.6052},
        schedule=ScheduleOptions(
            name="cosine" if is_adamw else "bert_cosine",
            warmup=max(0.0, settings["warmup_proportion"]),  # -1: none
            floor=1e-8 if is_adamw else 0.0,
        ),
    )


def _file(case: Case, file: Mapping[str, object], model: Dgl) -> Iterator[Comparison]:
    """Yield what the file holds, and that writing it again gives the very same tensors under the
    same names.
    """
    stated, o, sizes = case.info["checkpoint"], model.options, model.clip.sizes
    prefix = "module." if all(name.startswith("module.") for name in file["state_dict"]) else ""
    yield equal("checkpoint[prefix]", prefix, stated["state_dict_prefix"])
    yield equal("checkpoint[scaler]", "scaler" in file, stated["has_scaler"])
    theirs = published.state_of(file)
    ours = published.export_checkpoint(o, model.state_dict())
    yield equal("checkpoint[names written]", sorted(ours), sorted(theirs))
    yield equal(
        "checkpoint[tensors written]", all(torch.equal(ours[n], theirs[n]) for n in theirs), True
    )
    found = {
        "vision_width": sizes.vision_width,
        "vision_layers": sizes.vision_layers,
        "patch_size": sizes.patch,
        "image_resolution": sizes.pixels,
        "text_width": sizes.text_width,
        "text_layers": sizes.text_layers,
        "vocab_size": sizes.vocabulary,
        "context_length": sizes.context,
        "embed_dim": sizes.embed,
        "vision_heads": model.clip.visual.blocks[0].attn.heads,
        "text_heads": model.clip.text_blocks[0].attn.heads,
    }
    yield equal("tiny_clip", found, {name: case.info["tiny_clip"][name] for name in found})


def _features(case: Case, model: Dgl, ids: Tensor, frames: Tensor) -> Iterator[Comparison]:
    """Yield every recorded kind of video feature, on the model; with `pre_visual_pooling`: of
    length 1 already.
    """
    tolerance, settings = _tolerance(case, "eval arrays"), case.info["options"]
    text = model.text_feature(ids, model.prepare())
    yield close("text_feature", text, case.outputs["text_feature"], tolerance)
    for key in (
        n for n in case.outputs if re.fullmatch(r"(pre_visual_pooling/)?video_feature/.+", n)
    ):
        before, _, name = key.rpartition("video_feature/")
        of = copy.deepcopy(model)
        of.options = model.options.model_copy(update={"feature": name})
        shared = of.prepare()
        video = of.video_feature(frames, shared)
        pooled = F.normalize(video, dim=-1) if before else video
        yield close(key, pooled, case.outputs[key], tolerance)
        score = of.score(
            of.encode_text({"text": ids}, shared), of.encode_video({"frames": frames}, shared)
        )
        similarity = of.scale * score["similarity"]
        yield close(
            f"{before}sim/{name}", similarity, case.outputs[f"{before}sim/{name}"], tolerance
        )
    yield equal("options[feature]", model.options.feature, settings["visual_output_type"])


def _inside(case: Case, rows: Mapping[str, Tensor]) -> Iterator[Comparison]:
    tolerance = _tolerance(case, "eval arrays")
    yield close(
        "text_feature[plain]", rows["text_feature"], case.outputs["text_feature"], tolerance
    )
    for name in (n for n in case.outputs if n in rows and n != "text_feature"):
        yield close(name, rows[name], case.outputs[name], tolerance)


def _maps(case: Case, model: Dgl, frames: Tensor) -> Iterator[Comparison]:
    wanted = [name for name in _LAYOUTS if name in case.outputs]
    maps = model.attention_maps(frames, len(model.clip.visual.blocks)) if wanted else {}
    for name in wanted:
        kind, layout = _LAYOUTS[name]
        yield close(name, layout(maps[kind]), case.outputs[name], _tolerance(case, "eval arrays"))


def _gradients(
    case: Case, file: Mapping, model: Dgl, batch: Mapping[str, Tensor]
) -> Iterator[Comparison]:
    """Yield the losses, the norm of every gradient, which are None or exactly zero, and how many
    numbers train.
    """
    options, tolerance = (
        train_options(case.info["options"]),
        _tolerance(case, "train/*, grad_norm/*"),
    )
    freeze(model, options.freeze)
    terms = model.train()(batch)
    terms["loss"].backward()
    for name, key in (("train/loss", "loss"), ("train/loss_t2v", "t2v"), ("train/loss_v2t", "v2t")):
        if name in case.outputs:
            yield close(name, terms[key].detach(), case.outputs[name], tolerance)
    named = published.published_names(model.options, dict(model.named_parameters()))
    grads = {name: p.grad for name, p in named.items() if p.grad is not None}
    for name, grad in grads.items():
        yield close(f"grad_norm/{name}", grad.norm(), case.outputs[f"grad_norm/{name}"], tolerance)
    whole = torch.nn.utils.get_total_norm(grads.values())
    yield close(
        "train/grad_total_norm_before_clip",
        whole,
        case.outputs["train/grad_total_norm_before_clip"],
        tolerance,
    )
    unread = {n: v for n, v in published.state_of(file).items() if n.endswith("frame_embedding")}
    none = sorted({n for n, p in named.items() if p.grad is None} | unread.keys())
    yield equal("gradient_is_None", none, sorted(case.info["gradient_is_None"]))
    zero = sorted(n for n, grad in grads.items() if not grad.any())
    yield equal("gradient_is_exactly_zero", zero, sorted(case.info["gradient_is_exactly_zero"]))
    trained = {n: p for n, p in named.items() if p.requires_grad}
    yield equal("trainable_parameters", sorted(trained), sorted(case.info["trainable_parameters"]))
    counts = {
        "trainable": sum(p.numel() for p in trained.values()),
        "total": sum(p.numel() for p in [*named.values(), *unread.values()]),
    }
    yield equal("counts", counts, case.info["counts"])


def _step(
    case: Case, model: Dgl, batch: Mapping[str, Tensor], name: str, state: Mapping[str, Mapping]
) -> Iterator[Comparison]:
    """Yield one step with a new optimizer, or with the one in the file."""
    stated, options = case.info["train"], train_options(case.info["options"])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    freeze(model.train(), options.freeze)
    stepper = Stepper(model, model, options, torch.device("cpu"), World())
    done = stated["global_step_of_the_step"]
    if options.optimizer.name == "bertadam":  # counts the steps of each parameter itself
        done = int(next(iter(state.values()))["step"]) if state else 0
    _resume(model, stepper.optimizer, state)
    horizon = stated["num_train_optimization_steps"]
    lr = Schedule(options.schedule, lr=options.optimizer.lr, horizon_steps=horizon).lr(done)
    yield close(f"train[lr {name}]", lr, stated[f"lr_new_modules_used_{name}"], Tolerance(0, 1e-9))
    stepper(iter([Batch(dict(batch), [])]), 1, lr)
    after = published.published_names(model.options, dict(model.named_parameters()))
    before = published.published_names(model.options, before)
    for key in (n for n in case.outputs if n.startswith(f"after_step_{name}/")):
        _, what, parameter = key.split("/", 2)
        moved = float(case.outputs[f"after_step_{name}/delta_norm/{parameter}"]) > 0
        yield _after(
            case,
            key,
            what=what,
            before=before[parameter],
            after=after[parameter].detach(),
            moved=moved,
        )


def _after(
    case: Case, key: str, what: str, before: Tensor, after: Tensor, moved: bool
) -> Comparison:
    expected = case.outputs[key]
    if what == "delta_norm":
        tolerance = _tolerance(case, "after_step_*/delta_norm/*") if moved else EXACT
        return close(key, (after - before).norm(), expected, tolerance)
    tolerance = _tolerance(case, "after_step_*/norm/* and param/*")
    if what == "norm":
        return close(key, after.norm(), expected, tolerance)
    if moved and torch.equal(torch.from_numpy(expected), before):
        # the recorder kept a view and put the weights back: these arrays are the checkpoint's, bit
        # for bit, while delta_norm beside them says that the step moved them
        return close(f"{key}[recorded before the step]", before, expected, EXACT)
    return close(key, after, expected, tolerance)


def _resume(model: Dgl, into: torch.optim.Optimizer, state: Mapping[str, Mapping]) -> None:
    parameters = dict(model.named_parameters())
    names = {"next_m": "m", "next_v": "v"}  # of BertAdam
    for name, values in state.items():
        own = {names.get(k, k): v.clone() for k, v in values.items() if isinstance(v, Tensor)}
        if "m" not in own:
            own["step"] = torch.tensor(float(values["step"]))
        into.state[parameters[name]] = own


def _tolerance(case: Case, key: str) -> Tolerance:
    return Tolerance.parse(case.info["tolerance"][key])


HANDLERS = {"model": model_case}
