"""Checkpoints of mzhaoshuai/CenterCLIP and ArrowLuo/CLIP4Clip as options and weights, and back.

CenterCLIP writes `ckpt.best.pth.tar`, a dict {epoch, global_step, arch, state_dict, best_acc1,
optimizer, scaler}, with `module.` in front of the names if several processes trained it. CLIP4Clip
writes `pytorch_model.bin.<epoch>`, the bare state dict (docs/specs/centerclip.md, sections 11 and
14). We write CenterCLIP's form. Neither says how many frames and words were read or where tokens
are reduced; CenterCLIP's `hparams_train.json` beside it does (`settings`, see
published_settings.py).

Ignored: `clip.visual.position_ids` and `...tokencluster_inter.spg`, which are computed from sizes
and written again; `frame_position_embeddings` beside an LSTM, which nothing reads. Optimizer
states: published_training.py.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from models.base import Assets, Mismatch
from models.centerclip.options import Options
from models.centerclip.published_settings import assumptions, model_options, settings_of
from models.centerclip.published_settings import recipe as settings_recipe
from models.centerclip.reduction import TokenShape, shape_after
from models.centerclip.spectral import space_time_neighbours
from models.clip.sizes import PREFIX, name_of
from models.clip.towers import sizes_of
from models.parts.keys import (
    PARAMETER,
    Rule,
    count_parts,
    in_float32,
    part_of,
    to_ours,
    to_theirs,
)
from models.parts.wrappers import in_dictionary

# of recipes.yaml: how such files were trained, if no settings lie beside them
RECIPE = "centerclip_base"
_CLIP4CLIP_RECIPE = "clip4clip_published"
SUFFIX = ".pth.tar"
SIDE_FILE = ""
# what is taken from a recipe where no settings lie beside a file: option, why
NOT_IN_FILE = {
    "frames": "no hparams_train.json beside it",
    "words": "no hparams_train.json beside it",
    "reduce": "no hparams_train.json beside it says where tokens are reduced",
}
LOST = (
    "the optimizer's state, without which its program does not resume: start there with"
    " load_from_pretrained 1 (CLIP4Clip: init_model)",
)
SETTINGS_FILE = "hparams_train.json"  # in the same folder
ASKED = ("frames",)
WHOLE = ("reduce",)
IMPLIED: dict[str, object] = {"activation": "quick_gelu"}  # of its CLIP

__all__ = [
    "as_published",
    "assumptions",
    "export_file",
    "import_checkpoint",
    "recipe_of",
    "recognises",
    "settings",
    "settings_recipe",
    "training_facts",
]

_ANCHOR = "clip.visual.conv1.weight"
_UNREAD = "temporal.positions.weight"  # beside an LSTM
_CLIP4CLIP_EPS = 1e-12  # of the layer norms over frames
_MODULE = "module."
_POSITIONS = "clip.visual.position_ids"
_BLOCK = "clip.visual.transformer.resblocks."
_CLIP_NAME = r"(?!visual\.(position_ids|conv2\.)|.*(tokencluster_inter|deepcluster)\.).+"
_COMMON = [
    Rule(PREFIX, PREFIX, _CLIP_NAME),
    Rule("clip.visual.conv2.", "patches3d.", "weight"),
]
_CROSS = [
    Rule("cross.embeddings.position_embeddings.", "temporal.positions.", "weight"),
    Rule("cross.transformer.", "temporal.transformer."),
    Rule("cross.pooler.ln_pool.", "temporal.ln_pool.", PARAMETER),
    Rule("cross.pooler.dense.", "temporal.dense.", PARAMETER),
    Rule("similarity_dense.", "temporal.similarity.", PARAMETER),
]
_TEMPORAL = {
    "mean": [],
    "sequence": [
        Rule("frame_position_embeddings.", "temporal.positions.", "weight"),
        Rule("transformerClip.", "temporal.transformer."),
    ],
    "lstm": [
        Rule("frame_position_embeddings.", "temporal.positions.", "weight"),
        Rule("lstm_visual.", "temporal.lstm."),
    ],
    "tight": _CROSS,
}
_TRANSFORMERS = {"sequence": "transformerClip", "tight": "cross.transformer"}
_LEARNT = {
    "tokencluster_inter.cluster_embed": "embedding",
    "tokencluster_inter.cluster_frame_embed": "frame_embedding",
    "tokencluster_inter.cls_multiplier": "class_weight",
}


def as_published(value: object) -> object:
    """Return a file's content in the form its program writes, whatever it was wrapped in."""
    return in_dictionary(value, _ANCHOR)


def recognises(value: object) -> bool:
    """Return whether a file's content is of this system: its names alone, among them those of a
    CLIP.
    """
    if not isinstance(value, Mapping):
        return False
    try:
        state = state_of(value)
        to_ours(state, _rules(state), ignored(state))
    except Mismatch:
        return False
    is_dgl = "clip.visual.prompt_embeddings" in state
    return _ANCHOR in state and not is_dgl


def recipe_of(published: Mapping[str, object]) -> str:
    """Return the recipe of a file without settings.

    Files of CLIP4Clip have no position numbers. Raises Mismatch if there is no state dict inside.
    """
    return RECIPE if _POSITIONS in state_of(published) else _CLIP4CLIP_RECIPE


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Return what is known of the training run: {epoch, step, best_acc1}, as far as it is there.

    Completed epochs, steps, and R@1 of texts to videos in percent.
    """
    facts = {
        "epoch": published.get("epoch"),
        "step": published.get("global_step"),
        "best_acc1": published.get("best_acc1"),
    }
    return {name: value for name, value in facts.items() if isinstance(value, (int, float))}


def import_checkpoint(
    published: Mapping[str, object],
    settings: Mapping[str, object] | None = None,
    frames: int | None = None,
) -> tuple[Options, Assets]:
    """Return what `build` needs for the published model: options, and the weights in float32.

    settings: the content of hparams_train.json; without it the options say only what the weights
    tell. frames: instead of those of the settings. Raises Mismatch that names what is unknown, or
    cannot be known without settings.
    """
    state = state_of(published)
    init = to_ours(state, _rules(state), ignored(state))
    reductions = sorted(name for name in init if name.startswith("reduce."))
    if settings is None and reductions:
        raise Mismatch(
            f"{reductions[0]} and {len(reductions) - 1} more belong to a reduction of tokens that"
            " the file does not describe",
            f"Put the {SETTINGS_FILE} of that training run beside it.",
        )
    if settings and frames is not None:
        settings = {**settings, "max_frames": frames}
    stated = model_options(settings) if settings else {}
    told = _read_options(state)
    if stated:
        told.pop("words", None)
        told.pop("half_weights", None)  # the settings know
    for block, one in stated.get("reduce", {}).items():
        if f"reduce.{block - 1}.class_weight" in init:  # no setting says so
            one["class_weights"] = True
    options = _validated(stated | told)
    if options.temporal == "lstm" and _UNREAD not in init:
        init[_UNREAD] = init["clip.positional_embedding"].clone()
    return options, Assets(init=in_float32(init))


def _validated(values: Mapping[str, object]) -> Options:
    """Return the options. Raises Mismatch for values that contradict each other.

    An example: segments that do not divide the frames.
    """
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise Mismatch(
            f"settings that cannot be: {faults}", f"Is it the {SETTINGS_FILE} of that training?"
        ) from None


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """Return the whole content of a published file.

    There is no `optimizer` in it, which its program loads only where it is; that comes with
    `published_training.export_training`.

    training: as `training_facts` gives it. What CenterCLIP does not have (lstm, tight, frames of
    zeros as padding) is written in CLIP4Clip's form, a bare state dict.
    """
    named = published_names(options, state)
    if options.padding == "zero" or options.temporal in ("lstm", "tight"):
        return {name: value for name, value in named.items() if name != _POSITIONS}
    best = training.get("best_acc1", 100 * (training.get("scores") or {}).get("t2v_r1", 0.0))
    return {
        "epoch": int(training.get("epoch", 0)),
        "global_step": int(training.get("step", 0)),
        "arch": "CLIp4Clip",
        "state_dict": {_MODULE + name: value for name, value in named.items()},
        "best_acc1": float(best),
    }


def settings(options: Options, published: Mapping[str, object]) -> dict[str, object]:
    """Return what hparams_train.json has to say so that a file of `export_file` is understood.

    It says nothing of training. Raises Mismatch for reductions that it cannot express.
    """
    return settings_of(options, count_parts(state_of(published), _BLOCK))


def published_names(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our state dict under CenterCLIP's names, in its order.

    Shapes stay. It also holds what CenterCLIP keeps and we compute.
    """
    named = rename(options, state)
    positions = state["clip.visual.positional_embedding"]
    named[_POSITIONS] = torch.arange(len(positions), device=positions.device)[None]
    named |= _graphs(options, len(positions) - 1)
    return _in_published_order(named)


def rename(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return anything kept by our parameter names under the published ones, in our order.

    values: weights or gradients, whose shapes stay. Raises Mismatch for names that no rule knows.
    """
    blocks = [int(name.split(".")[1]) for name in values if name.startswith("reduce.")]
    rules = [*_COMMON, *_TEMPORAL[options.temporal], *_reduction_rules(blocks)]
    return to_theirs(values, rules)


def state_of(published: Mapping[str, object]) -> Mapping[str, object]:
    """Return the state dict inside a file's content, without `module.`.

    Raises Mismatch if there is none.
    """
    state = published.get("state_dict", published)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise Mismatch("no state dict inside", "Give a checkpoint of CenterCLIP or CLIP4Clip.")
    return {name.removeprefix(_MODULE): value for name, value in state.items()}


def ignored(state: Mapping[str, object]) -> dict[str, str]:
    """Return the entries that we do not need, and why: {published name: reason}."""
    return {
        name: "computed from the size"
        for name in state
        if name == _POSITIONS or name.endswith("tokencluster_inter.spg")
    }


def _rules(state: Mapping[str, object]) -> list[Rule]:
    """Return the rules of all parts a published file may have."""
    of_reduction = re.compile(rf"{re.escape(_BLOCK)}(\d+)\.(tokencluster_inter|deepcluster)\.")
    matches = [of_reduction.match(name) for name in state]
    blocks = [int(match[1]) for match in matches if match]
    return [*_COMMON, *_TEMPORAL[_temporal_of(state)], *_reduction_rules(blocks)]


def _reduction_rules(blocks: Iterable[int]) -> list[Rule]:
    rules = []
    for block in sorted(set(blocks)):
        theirs = f"{_BLOCK}{block}."
        ours = f"reduce.{block}."
        rules.append(Rule(f"{theirs}deepcluster.token_mlp.", f"{ours}mlp."))
        for their_name, our_name in _LEARNT.items():
            rules.append(Rule(theirs + their_name, ours + our_name, ""))
    return rules


def _temporal_of(state: Mapping[str, object]) -> str:
    """Return the temporal option that the names tell."""
    firsts = {"lstm_visual": "lstm", "cross": "tight", "transformerClip": "sequence"}
    tops = {name.partition(".")[0] for name in state}
    return next((kind for top, kind in firsts.items() if top in tops), "mean")


def _read_options(state: Mapping[str, object]) -> dict[str, object]:
    """Return the options that the weights themselves tell."""
    sizes = sizes_of(part_of(state, PREFIX))
    temporal = _temporal_of(state)
    told: dict[str, object] = {
        "backbone": name_of(sizes),
        "patches": "3d" if "clip.visual.conv2.weight" in state else "2d",
        "temporal": temporal,
    }
    if temporal in _TRANSFORMERS:
        told["temporal_layers"] = count_parts(state, f"{_TRANSFORMERS[temporal]}.resblocks.")
    if _POSITIONS not in state:  # CLIP4Clip's own
        told |= {"temporal_eps": _CLIP4CLIP_EPS, "padding": "zero"}
    if sizes.context < Options().words:
        told["words"] = sizes.context
    # whatever the recipe of its training says: to read in float16 is slow on a CPU, and rounds
    told["half_weights"] = False
    return told


def _graphs(options: Options, per_frame: int) -> dict[str, Tensor]:
    """Return the space-time graphs that CenterCLIP keeps in its state dict."""
    graphs = {}
    shape = TokenShape(frames=options.frames, tokens=per_frame, width=0)
    for block, reduce in sorted(options.reduce.items()):
        if reduce.method == "spectral" and reduce.space_time:
            near = space_time_neighbours(shape.tokens, shape.frames // reduce.frames)
            graphs[f"{_BLOCK}{block - 1}.tokencluster_inter.spg"] = near.float()[None]
        shape = shape_after(reduce, shape)
    return graphs


def _in_published_order(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries in the order of the published modules, by which optimizer states are
    numbered.
    """
    followers: dict[str, list[str]] = {}
    for name in named:
        if anchor := _anchor(name):
            followers.setdefault(anchor, []).append(name)
    followed = {name for names in followers.values() for name in names}
    ordered = {}
    for name, value in named.items():
        if name in followed:
            continue
        ordered[name] = value
        for follower in followers.get(name, ()):
            ordered[follower] = named[follower]
    return ordered


def _anchor(name: str) -> str:
    """Return the entry of CLIP behind which an entry comes that CLIP does not have; "" for all
    others.
    """
    if name == _POSITIONS:
        return "clip.visual.proj"
    if name == "clip.visual.conv2.weight":
        return "clip.visual.ln_post.bias"
    inside = re.match(rf"({re.escape(_BLOCK)}\d+\.)(tokencluster_inter|deepcluster)\.", name)
    return f"{inside[1]}ln_2.bias" if inside else ""
