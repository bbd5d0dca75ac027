"""Checkpoints of mzhaoshuai/CenterCLIP (`ckpt.best.pth.tar`) and ArrowLuo/CLIP4Clip
(`pytorch_model.bin.<epoch>`).

Read into our options and weights, and written in CenterCLIP's form. Its file is a dict {epoch,
global_step, arch, state_dict, best_acc1, optimizer, scaler}, its names with `module.` in front if
several processes trained it; CLIP4Clip's is the bare state dict (docs/specs/centerclip.md, sections
11 and 14). Neither says how many frames and words were read or where tokens are reduced:
CenterCLIP's `hparams_train.json` beside it does (`settings`, see centerclip_settings.py).

What is ignored: `clip.visual.position_ids` and `...tokencluster_inter.spg`, which are computed from
sizes and written again; `frame_position_embeddings` beside an LSTM, which nothing reads. Optimizer
states: centerclip_training.py.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.base import Assets, Mismatch
from models.centerclip.options import STAYS, Options
from models.centerclip.published_settings import model_options, settings_of
from models.centerclip.published_settings import recipe as settings_recipe
from models.centerclip.spectral import space_time_neighbours
from models.clip.sizes import BACKBONES
from models.clip.towers import sizes_of
from models.parts.keys import Rule, to_ours, to_theirs
from models.parts.wrappers import in_dictionary

# of pipelines.yaml: how such files were trained, if no settings lie beside them
RECIPE = "centerclip_base"
_CLIP4CLIP_RECIPE = "clip4clip_published"
SUFFIX = ".pth.tar"
SIDE_FILE = ""
SETTINGS_FILE = "hparams_train.json"  # in the same folder
IMPLIED: dict[str, object] = {"activation": "quick_gelu"}  # of its CLIP

__all__ = [
    "as_published",
    "export_file",
    "import_checkpoint",
    "recipe_of",
    "recognises",
    "settings",
    "settings_recipe",
    "training_facts",
]

_ANCHOR = "clip.visual.conv1.weight"
_CLIP4CLIP_EPS = 1e-12  # of the layer norms over frames
_MODULE = "module."
_POSITIONS, _UNREAD = "clip.visual.position_ids", "frame_position_embeddings.weight"
_BLOCK = "clip.visual.transformer.resblocks."
_CLIP_NAME = r"(?!visual\.(position_ids|conv2\.)|.*(tokencluster_inter|deepcluster)\.).+"
_COMMON = [Rule("clip.", "clip.", _CLIP_NAME), Rule("clip.visual.conv2.", "patches3d.", "weight")]
_CROSS = [
    Rule("cross.embeddings.position_embeddings.", "temporal.positions.", "weight"),
    Rule("cross.transformer.", "temporal.transformer."),
    Rule("cross.pooler.ln_pool.", "temporal.ln_pool.", "(weight|bias)"),
    Rule("cross.pooler.dense.", "temporal.dense.", "(weight|bias)"),
    Rule("similarity_dense.", "temporal.similarity.", "(weight|bias)"),
]
_TEMPORAL = {
    "mean": [],
    "sequence": [
        Rule("frame_position_embeddings.", "temporal.positions.", "weight"),
        Rule("transformerClip.", "temporal.transformer."),
    ],
    "lstm": [Rule("lstm_visual.", "temporal.lstm.")],
    "tight": _CROSS,
}
_LEARNT = {
    "tokencluster_inter.cluster_embed": "embedding",
    "tokencluster_inter.cluster_frame_embed": "frame_embedding",
}


def as_published(value: object) -> object:
    """A file's content in the form its program writes, whatever it was wrapped in."""
    return in_dictionary(value, _ANCHOR)


def recognises(value: object) -> bool:
    """Whether a file that was read is of this system: only names that it gives, at least those of a
    CLIP.
    """
    if not isinstance(value, Mapping):
        return False
    try:
        state = state_of(value)
        to_ours(state, _rules(state), ignored(state))
    except Mismatch:
        return False
    return (
        "clip.visual.conv1.weight" in state and "clip.visual.prompt_embeddings" not in state
    )  # those are of DGL


def recipe_of(published: Mapping[str, object]) -> str:
    """The recipe of a file without settings: CLIP4Clip's has no position numbers."""
    return RECIPE if _POSITIONS in state_of(published) else _CLIP4CLIP_RECIPE


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """What is known of the training: completed epochs, steps, and R@1 of texts to videos in percent
    (best_acc1).
    """
    names = {"epoch": "epoch", "global_step": "step", "best_acc1": "best_acc1"}
    return {
        ours: published[name]
        for name, ours in names.items()
        if isinstance(published.get(name), (int, float))
    }


def import_checkpoint(
    published: Mapping[str, object], settings: Mapping[str, object] | None = None
) -> tuple[Options, Assets]:
    """What `build` needs for the published model: options and assets with the weights, in float32.

    settings: the content of hparams_train.json; without it the options say only what the weights
    tell. Raises Mismatch naming what is unknown, or cannot be known without settings.
    """
    state = state_of(published)
    init = to_ours(state, _rules(state), ignored(state))
    if settings is None and (needs := sorted({n for n in init if n.startswith("reduce.")})):
        raise Mismatch(
            f"{needs[0]} and {len(needs) - 1} more belong to a reduction of tokens that the file"
            " does not describe",
            f"Put the {SETTINGS_FILE} of that training beside it.",
        )
    stated = model_options(settings) if settings else {}
    told = {name: value for name, value in _told(state).items() if name != "words" or not stated}
    options = Options.model_validate(stated | told)
    return options, Assets(
        init={n: v.float() if v.is_floating_point() else v for n, v in init.items()}
    )


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """The whole content of a published file, without an optimizer state; training: as
    `training_facts` gives it.

    In CLIP4Clip's form, a bare state dict, for what CenterCLIP has not: lstm, tight, frames of
    zeros as padding.
    """
    named = published_names(options, state)
    if options.padding == "zero" or options.temporal in ("lstm", "tight"):
        return {name: value for name, value in named.items() if name != _POSITIONS}
    return {
        "epoch": int(training.get("epoch", 0)),
        "global_step": int(training.get("step", 0)),
        "arch": "CLIp4Clip",
        "state_dict": {_MODULE + name: value for name, value in named.items()},
        "best_acc1": float(training.get("best_acc1", 0.0)),
        "optimizer": {"state": {}, "param_groups": []},
    }


def settings(options: Options, published: Mapping[str, object]) -> dict[str, object]:
    """What hparams_train.json has to say so that a file of `export_file` is understood; it says
    nothing of training.
    """
    blocks = {
        n.removeprefix(_BLOCK).partition(".")[0]
        for n in state_of(published)
        if n.startswith(_BLOCK)
    }
    return settings_of(options, len(blocks))


def published_names(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the names of CenterCLIP's, in its order, with what it also keeps and we
    compute.
    """
    named = renamed(options, state)
    positions = state["clip.visual.positional_embedding"]
    named[_POSITIONS] = torch.arange(len(positions), device=positions.device)[None]
    named |= _graphs(options, len(positions) - 1)
    if options.temporal == "lstm":
        named[_UNREAD] = state["clip.positional_embedding"].clone()
    return _ordered(named)


def renamed(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Anything kept by our parameter names (weights, gradients) under the published ones, in our
    order.
    """
    blocks = [int(name.split(".")[1]) for name in values if name.startswith("reduce.")]
    return to_theirs(values, [*_COMMON, *_TEMPORAL[options.temporal], *_reductions(blocks)])


def state_of(published: Mapping[str, object]) -> Mapping[str, object]:
    """The state dict inside a file's content, without `module.`. Raises Mismatch if there is
    none.
    """
    state = published.get("state_dict", published)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise Mismatch("no state dict inside", "Give a checkpoint of CenterCLIP or CLIP4Clip.")
    return {name.removeprefix(_MODULE): value for name, value in state.items()}


def ignored(state: Mapping[str, object]) -> dict[str, str]:
    """Entries that we do not need, and why."""
    found = {
        n: "computed from the size"
        for n in state
        if n == _POSITIONS or n.endswith("tokencluster_inter.spg")
    }
    is_recurrent = any(name.startswith("lstm_visual.") for name in state)
    return found | (
        {_UNREAD: "nothing reads it beside an LSTM"} if is_recurrent and _UNREAD in state else {}
    )


def _rules(state: Mapping[str, object]) -> list[Rule]:
    """The rules of all parts a published file may have."""
    found = (
        re.match(rf"{re.escape(_BLOCK)}(\d+)\.(?:tokencluster_inter|deepcluster)\.", name)
        for name in state
    )
    return [*_COMMON, *_TEMPORAL[_temporal(state)], *_reductions(int(m[1]) for m in found if m)]


def _reductions(blocks: Iterable[int]) -> list[Rule]:
    rules = []
    for block in sorted(set(blocks)):
        before, ours = f"{_BLOCK}{block}.", f"reduce.{block}."
        rules.append(Rule(f"{before}deepcluster.token_mlp.", f"{ours}mlp."))
        rules += [Rule(before + theirs, ours + name, "") for theirs, name in _LEARNT.items()]
    return rules


def _temporal(state: Mapping[str, object]) -> str:
    """The temporal option that the names tell."""
    firsts = {"lstm_visual": "lstm", "cross": "tight", "transformerClip": "sequence"}
    tops = {name.partition(".")[0] for name in state}
    return next((kind for top, kind in firsts.items() if top in tops), "mean")


def _told(state: Mapping[str, object]) -> dict[str, object]:
    """The options that the weights themselves tell."""
    sizes = sizes_of(
        {n.removeprefix("clip."): v for n, v in state.items() if n.startswith("clip.")}
    )
    temporal = _temporal(state)
    told: dict[str, object] = {
        "backbone": next((name for name, own in BACKBONES.items() if own == sizes), "given"),
        "patches": "3d" if "clip.visual.conv2.weight" in state else "2d",
        "temporal": temporal,
    }
    if temporal in ("sequence", "tight"):
        blocks = {
            m[1]
            for n in state
            if (m := re.match(r"(?:transformerClip|cross\.transformer)\.resblocks\.(\d+)\.", n))
        }
        told["temporal_layers"] = len(blocks)
    if _POSITIONS not in state:  # CLIP4Clip's own
        told |= {"temporal_eps": _CLIP4CLIP_EPS, "padding": "zero"}
    if sizes.context < Options().words:
        told["words"] = sizes.context
    return told


def _graphs(options: Options, per_frame: int) -> dict[str, Tensor]:
    """The space-time graphs that CenterCLIP keeps in its state dict."""
    frames, tokens, found = options.frames, per_frame, {}
    for block, o in sorted(options.reduce.items()):
        if o.method in STAYS:
            continue
        if o.method == "spectral" and o.space_time:
            near = space_time_neighbours(tokens, frames // o.frames).float()[None]
            found[f"{_BLOCK}{block - 1}.tokencluster_inter.spg"] = near
        frames, tokens = o.frames, tokens if o.method == "pooling" else o.tokens
    return found


def _ordered(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries in the order of the published modules: a file's optimizer state counts parameters
    in it.
    """
    followers: dict[str, list[str]] = {}
    for name in named:
        if anchor := _anchor(name):
            followers.setdefault(anchor, []).append(name)
    followed = {name for names in followers.values() for name in names}
    order = [n for name in named if name not in followed for n in (name, *followers.get(name, ()))]
    return {name: named[name] for name in order}


def _anchor(name: str) -> str:
    """The entry of CLIP behind which an entry comes that CLIP does not have; empty for all
    others.
    """
    if name == _POSITIONS:
        return "clip.visual.proj"
    if name == "clip.visual.conv2.weight":
        return "clip.visual.ln_post.bias"
    inside = re.match(rf"({re.escape(_BLOCK)}\d+\.)(tokencluster_inter|deepcluster)\.", name)
    return f"{inside[1]}ln_2.bias" if inside else ""
