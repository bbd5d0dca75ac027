"""Checkpoints of knightyxp/DGL (`ckpt.pth.tar`, `ckpt.best.pth.tar`) as ours, and back.

The file is {"epoch", "global_step", "arch", "state_dict", "best_acc1", "optimizer", perhaps
"scaler"} (docs/specs/dgl.md, section 10); names in the state dict begin with `module.` if the run
was distributed.

Names and shapes tell the space, the backbone, the layers and the numbers of prompts. They do not
tell everything. A table of the transformer space has M + T x P rows, and P is written nowhere: P =
G is taken, which the published program requires, and M = 8, as in everything that was published. T
= 64 means ActivityNet, hence 64 words. The linear space says nothing of T, M and words: T and words
are the recipe's, M is 8 again, or 2 P if so few rows cannot be cut there.

Ignored: `visual.position_ids` (0, 1, 2, ...) and `visual.frame_embedding`, which nothing reads.
"""

from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from models.base import Assets, Mismatch
from models.clip.sizes import PREFIX, Sizes, name_of
from models.clip.towers import sizes_of
from models.dgl.options import Options
from models.dgl.published_settings import assumptions, model_options, settings_of
from models.dgl.published_settings import recipe as settings_recipe
from models.parts.keys import PARAMETER, Rule, in_float32, part_of, to_ours, to_theirs
from models.parts.wrappers import unwrapped

RECIPE = "dgl_msrvtt"  # of recipes.yaml: how such files were trained
SUFFIX = ".pth.tar"
SIDE_FILE = ""
# what is taken from a recipe where no settings lie beside a file: option, why
NOT_IN_FILE = {
    "text_prompts": "no hparams_train.json beside it; all published files have 8",
    "frames": "no hparams_train.json beside it",
    "words": "no hparams_train.json beside it",
    "feature": "no hparams_train.json beside it",
}
SETTINGS_FILE = "hparams_train.json"  # in the same folder
ASKED = ("text_prompts",)
# published defaults of what the files do not hold
IMPLIED = {"activation": "quick_gelu", "text_blocks": "prompted"}
LOST = (
    "the optimizer's state, without which its program does not resume: start there with"
    " load_from_pretrained 1",
)
ARCH = "CLIp4Clip"  # sic

__all__ = [
    "as_published",
    "assumptions",
    "export_checkpoint",
    "export_file",
    "import_checkpoint",
    "optimizer_state",
    "parameter_order",
    "published_names",
    "recognises",
    "settings",
    "settings_recipe",
    "state_of",
    "training_facts",
]

_NO_PROMPTS = ("no prompts inside", "Give a checkpoint of knightyxp/DGL.")

_DDP = "module."
_TEXT_PROMPTS = 8
_LONG = 64  # frames and words of ActivityNet
_VIDEO = "clip.visual.prompt_embeddings"
_UNIFIED = "clip.unified_prompt_embedding.weight"
_LINEAR = "clip.visual_prompt_embedding"
_POSITIONS = "clip.visual.position_ids"
_UNREAD = "clip.visual.frame_embedding"
_IGNORED = {_POSITIONS: "the numbers 0, 1, 2, ..."}
_OWN = (  # names below `clip.visual.`, and below `clip.`, that CLIP itself does not have
    r"(?!PromptTransformer|unified_|prefix_|postfix_|visual_prompt"
    r"|visual\.(prompt|conv2|frame_embedding))"
)
_BEHIND = {  # what CLIP does not have: the entry of CLIP in front of it
    _LINEAR: "clip.logit_scale",
    _UNREAD: "clip.visual.positional_embedding",
    _VIDEO: "clip.visual.proj",
    _POSITIONS: "clip.visual.proj",
    "clip.visual.conv2.weight": "clip.visual.ln_post.bias",
}
_LAST = (  # and what stands behind all of CLIP, in this order
    "clip.unified_prompt_mlp.",
    "clip.PromptTransformer.",
    _UNIFIED,
    "clip.prefix_text_prompt_proj_layer.",
    "clip.postfix_text_prompt_proj_layer.",
)
_RULES = [
    Rule(_VIDEO, "prompts.video", ""),
    Rule(_UNIFIED, "prompts.space.table", ""),
    Rule("clip.PromptTransformer.resblocks.0.", "prompts.space.block."),
    Rule("clip.unified_prompt_mlp.", "prompts.space.words."),
    Rule("clip.prefix_text_prompt_proj_layer.", "prompts.space.before.", PARAMETER),
    Rule("clip.postfix_text_prompt_proj_layer.", "prompts.space.behind.", PARAMETER),
    Rule("clip.visual.conv2.", "patches3d.", "weight"),
    Rule(_UNREAD, "frame_embedding", ""),
    Rule(
        PREFIX,
        PREFIX,
        rf"{_OWN}.+",
    ),
]
_NEW = "prompts."  # what CLIP does not have


def _rules(space: str) -> list[Rule]:
    """Return the names of a state dict, or of a part of one; the table has another name in each
    space.
    """
    if space == "transformer":
        return _RULES
    others = [rule for rule in _RULES if rule.theirs != _UNIFIED]
    return [Rule(_LINEAR, "prompts.space.table", ""), *others]


def implied(options: Options, state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what of IMPLIED decides the scores of a model with these options and weights."""
    is_deeper = options.layers < sizes_of(part_of(state, PREFIX)).text_layers
    return IMPLIED if is_deeper else {"activation": IMPLIED["activation"]}


def guessed(options: Options) -> list[str]:
    """Return what the rows of a transformer's table may mean otherwise, "name value: reason"."""
    if options.space != "transformer":
        return []
    why = "no hparams_train.json beside it"
    return [
        f"text_prompts {options.text_prompts}: {why}; all published files have 8",
        f"frames {options.frames}: the rows of prompts, if {options.text_prompts} are of texts",
    ]


def as_published(value: object) -> object:
    """Return a file's content in the form its program writes, whatever it was wrapped in."""
    found = unwrapped(value, [_VIDEO])
    if found is None:
        return value
    state, beside = found
    return beside | {"state_dict": state}


def recognises(value: object) -> bool:
    """Return whether a file's content is of this system."""
    state = value.get("state_dict") if isinstance(value, Mapping) else None
    if not isinstance(state, Mapping):
        return False
    return _VIDEO in state or _DDP + _VIDEO in state


def settings(options: Options, published: Mapping[str, object]) -> dict[str, object]:
    """Return what hparams_train.json has to say for a file of `export_file`."""
    return settings_of(options)


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Return epochs and steps that were done, and the best score by its published name."""
    facts = {
        "epoch": published.get("epoch"),
        "step": published.get("global_step"),
        "best_acc1": published.get("best_acc1"),
    }
    return {name: value for name, value in facts.items() if isinstance(value, (int, float))}


def state_of(published: Mapping[str, object]) -> dict[str, object]:
    """Return the state dict of a file, without the prefix of a distributed run."""
    return {str(name).removeprefix(_DDP): value for name, value in published["state_dict"].items()}


def import_checkpoint(
    published: Mapping[str, object],
    settings: Mapping[str, object] | None = None,
    text_prompts: int | None = None,
) -> tuple[Options, Assets]:
    """Return what `build` needs for the published model.

    settings: the content of hparams_train.json; the weights decide where they say something else.
    text_prompts: M, which no file tells, in place of that of the settings, or of the published 8.
    Raises Mismatch that names every unknown key, or sizes that no model has.
    """
    state = state_of(published)
    stated = model_options(settings) if settings is not None else {}
    if text_prompts is None:
        text_prompts = int(stated.get("text_prompts", _TEXT_PROMPTS))
    space = _space_of(state)
    ignored = {name: why for name, why in _IGNORED.items() if name in state}
    init = to_ours(state, _rules(space), ignored)
    sizes = sizes_of(part_of(init, PREFIX))
    found = _read_prompts(init, space, sizes, text_prompts)
    found["space"] = space
    found["backbone"] = name_of(sizes)
    if "patches3d.weight" in init:
        found["patches"] = "3d"
    if "frame_embedding" in init:
        found["frame_embedding"] = True
        found.setdefault("frames", len(init["frame_embedding"]))
    if stated:
        found.pop("words", None)  # the settings know
    found = stated | found
    if settings is None and space == "linear":
        found.pop("text_prompts")  # assumed, not told
        found |= {"text_prompts": told} if (told := _told_prompts(init, text_prompts)) else {}
    if sizes.context < found.get("words", Options().words):
        found["words"] = sizes.context
    if found["layers"] < sizes.text_layers:
        found["text_blocks"] = "prompted"  # as the published program runs it
    try:
        options = Options.model_validate(found)
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors())
        raise Mismatch(
            f"sizes that no model has: {faults}", "The file is damaged or of another system."
        ) from None
    return options, Assets(init=in_float32(init))


def _told_prompts(init: Mapping[str, Tensor], text_prompts: int) -> int | None:
    """Return the text prompts of a linear space, if so few rows cannot be cut as the published 8
    are.
    """
    n_rows = init["prompts.space.table"].shape[1]
    told = text_prompts if text_prompts // 2 <= 2 * n_rows else 2 * n_rows
    return None if told == Options().text_prompts else told


def _space_of(state: Mapping[str, object]) -> str:
    return "transformer" if _UNIFIED in state else "linear"


def _read_prompts(
    init: Mapping[str, Tensor], space: str, sizes: Sizes, text_prompts: int
) -> dict[str, object]:
    """Return the options that the tables of prompts tell. Raises Mismatch if they fit no
    options.
    """
    table = init.get("prompts.space.table")
    video = init.get("prompts.video")
    if table is None or video is None:
        raise Mismatch(*_NO_PROMPTS)
    if video.ndim != 3 or table.ndim != (2 if space == "transformer" else 3):
        raise Mismatch(*_NO_PROMPTS)
    n_global = video.shape[1]
    options: dict[str, object] = {
        "global_prompts": n_global,
        "layers": table.shape[-1] // sizes.vision_width,
    }
    if space == "linear":
        n_rows = table.shape[1]
        is_enough = text_prompts // 2 <= 2 * n_rows
        options["frame_prompts"] = n_rows
        options["text_prompts"] = text_prompts if is_enough else 2 * n_rows
        return options
    frames, rest = divmod(len(table) - text_prompts, n_global)
    if rest or frames < 1:
        raise Mismatch(
            f"{len(table)} rows of prompts cannot be {text_prompts} of texts and {n_global} of each"
            " frame",
            f"Only files with {text_prompts} text prompts are understood, which all published ones"
            " have.",
        )
    if frames == _LONG:
        options["words"] = _LONG
    return options | {
        "frame_prompts": n_global,
        "frames": frames,
        "text_prompts": text_prompts,
    }


def export_checkpoint(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict as the published program has it, without a distributed run's prefix.

    Shapes stay. Raises Mismatch for names that no rule knows.
    """
    named = published_names(options, state)
    n_positions = len(state["clip.visual.positional_embedding"])
    named[_POSITIONS] = torch.arange(n_positions)[None]
    return _in_published_order(named)


def _in_published_order(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries in the order of the published modules, in which an optimizer numbers
    them.
    """
    last = [name for prefix in _LAST for name in named if name.startswith(prefix)]
    placed = {*_BEHIND, *last}
    order = []
    for name in named:
        if name not in placed:
            followers = [other for other, anchor in _BEHIND.items() if anchor == name]
            order += [name, *(other for other in followers if other in named)]
    return {name: named[name] for name in order + last}


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """Return the whole content of a published file, as a distributed run writes it.

    Tensors keep their shapes. There is no optimizer in it: load it there with `load_from_pretrained
    1`. Raises Mismatch for sizes that the published program cannot run or the file cannot say.
    """
    _check_form(options, state)
    scores = training.get("scores") or {}
    best = training.get("best_acc1", 100 * scores.get("t2v_r1", 0.0))
    named = export_checkpoint(options, state)
    return {
        "epoch": int(training.get("epoch", 0)),
        "global_step": int(training.get("step", 0)),
        "arch": ARCH,
        "state_dict": {_DDP + name: value for name, value in named.items()},
        "best_acc1": float(best),
    }


def _check_form(options: Options, state: Mapping[str, Tensor]) -> None:
    """Raise Mismatch for what the published program cannot run."""
    sizes = sizes_of(part_of(state, PREFIX))
    faults = []
    if options.frame_prompts != options.global_prompts:
        faults.append(
            f"{options.frame_prompts} frame prompts, but {options.global_prompts} global ones: the"
            " numbers must be equal"
        )
    if not sizes.vision_layers <= options.layers <= sizes.text_layers:
        faults.append(
            f"{options.layers} layers of prompts for {sizes.vision_layers} vision and"
            f" {sizes.text_layers} text blocks"
        )
    if faults:
        raise Mismatch(
            f"the published program cannot run it: {'; '.join(faults)}", "Keep it in our own form."
        )


def published_names(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return anything kept by our parameter names under the published ones.

    values: weights or gradients, whose shapes stay. Raises Mismatch for names that no rule knows.
    """
    return to_theirs(values, _rules(options.space))


def optimizer_state(published: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Return {our parameter name: its state} of the optimizer in a file; {} if it made no step.

    The states are numbered through four groups: CLIP with decay, without (names with `bias`), then
    prompts likewise; within a group in the order of the state dict. AdamW: step, exp_avg,
    exp_avg_sq; BertAdam: step, next_m, next_v.
    """
    order = [name for group in parameter_order(published) for name in group]
    states = published["optimizer"]["state"]
    return {order[number]: dict(values) for number, values in states.items()}


def parameter_order(published: Mapping[str, object]) -> list[list[str]]:
    """Return our names of all parameters in the four groups, as an optimizer numbers them."""
    state = state_of(published)
    groups: dict[tuple[bool, bool], list[str]] = {
        (is_new, is_bias): [] for is_new in (False, True) for is_bias in (False, True)
    }
    rules = _rules(_space_of(state))
    for name, value in state.items():
        if name == _POSITIONS:
            continue
        ours = next(iter(to_ours({name: value}, rules)))
        groups[ours.startswith(_NEW), "bias" in name].append(ours)
    return list(groups.values())
