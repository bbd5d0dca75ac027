"""Checkpoints of knightyxp/DGL (`ckpt.pth.tar`, `ckpt.best.pth.tar`) and ours, both ways.

The file is {"epoch", "global_step", "arch", "state_dict", "best_acc1", "optimizer", perhaps
"scaler"} (docs/specs/dgl.md, section 10); names in the state dict begin with `module.` if the run
was distributed. What the names and shapes tell: the space, the backbone, layers, numbers of
prompts. What they do not: a table of the transformer space has M + T x P rows, and P
stands nowhere: as the published program requires, P = G is taken, and M = 8, as in everything that
was published. T = 64 means ActivityNet, so 64 words. The linear space says nothing of T, M and
words: T and words are the recipe's, M is 8 again, or 2 P where so few rows cannot be cut there.

What is ignored: `visual.position_ids` (0, 1, 2, ...) and `visual.frame_embedding`, which nothing
reads.
"""

from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from models.base import Assets, Mismatch
from models.clip.sizes import BACKBONES, Sizes
from models.clip.towers import sizes_of
from models.dgl.options import Options
from models.parts.keys import Rule, to_ours, to_theirs
from models.parts.wrappers import unwrapped

RECIPE = "dgl_msrvtt"  # of pipelines.yaml: how such files were trained
SUFFIX = ".pth.tar"
SIDE_FILE = ""
# published defaults of what the files do not hold
IMPLIED = {"activation": "quick_gelu", "feature": "global_prompt0", "text_prompts": 8}
ARCH = "CLIp4Clip"  # sic

_DDP = "module."
_TEXT_PROMPTS = 8
_LONG = 64  # frames and words of ActivityNet
_WORDS = "clip.visual.prompt_embeddings"
_UNIFIED = "clip.unified_prompt_embedding.weight"
_LINEAR = "clip.visual_prompt_embedding"
_POSITIONS, _UNREAD = "clip.visual.position_ids", "clip.visual.frame_embedding"
_IGNORED = {_POSITIONS: "the numbers 0, 1, 2, ...", _UNREAD: "nothing reads it"}
_PARAMETER = r"(weight|bias)"
_RULES = [
    Rule(_WORDS, "prompts.video", ""),
    Rule(_UNIFIED, "prompts.space.table", ""),
    Rule("clip.PromptTransformer.resblocks.0.", "prompts.space.block."),
    Rule("clip.unified_prompt_mlp.", "prompts.space.words."),
    Rule("clip.prefix_text_prompt_proj_layer.", "prompts.space.before.", _PARAMETER),
    Rule("clip.postfix_text_prompt_proj_layer.", "prompts.space.behind.", _PARAMETER),
    Rule("clip.visual.conv2.", "patches3d.", "weight"),
    Rule(
        "clip.",
        "clip.",
        r"(?!PromptTransformer|unified_|prefix_|postfix_|visual_prompt|visual\.(prompt|conv2)).+",
    ),
]
_NEW = ("prompts.",)


def _rules(space: str) -> list[Rule]:
    """The names of a state dict, or of a part of one; the table has another one in each space."""
    if space == "transformer":
        return _RULES
    return [Rule(_LINEAR, r.ours, r.rest) if r.theirs == _UNIFIED else r for r in _RULES]


def as_published(value: object) -> object:
    """A file's content in the form its program writes, whatever it was wrapped in."""
    found = unwrapped(value, [_WORDS])
    return value if found is None else found[1] | {"state_dict": found[0]}


def recognises(value: object) -> bool:
    """Whether a file that was read is of this system."""
    state = value.get("state_dict") if isinstance(value, Mapping) else None
    return isinstance(state, Mapping) and {_WORDS, _DDP + _WORDS} & state.keys() != set()


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Epochs and steps that were done, and the best score by its published name."""
    named = {"epoch": published.get("epoch"), "step": published.get("global_step")}
    named["best_acc1"] = published.get("best_acc1")
    return {key: value for key, value in named.items() if isinstance(value, (int, float))}


def state_of(published: Mapping[str, object]) -> dict[str, object]:
    """The state dict of a file, without the prefix of a distributed run."""
    return {str(name).removeprefix(_DDP): value for name, value in published["state_dict"].items()}


def import_checkpoint(
    published: Mapping[str, object], text_prompts: int = _TEXT_PROMPTS
) -> tuple[Options, Assets]:
    """What `build` needs for the published model. text_prompts: M, which no file tells.

    Raises Mismatch naming every key that is unknown, or sizes that cannot be.
    """
    state = state_of(published)
    space = "transformer" if _UNIFIED in state else "linear"
    init = to_ours(
        state, _rules(space), {name: why for name, why in _IGNORED.items() if name in state}
    )
    clip = {
        name.removeprefix("clip."): value
        for name, value in init.items()
        if name.startswith("clip.")
    }
    sizes = sizes_of(clip)
    found = _prompts(init, space, sizes, text_prompts)
    found["backbone"] = next((name for name, own in BACKBONES.items() if own == sizes), "given")
    if "patches3d.weight" in init:
        found["patches"] = "3d"
    if sizes.context < found.get("words", Options().words):
        found["words"] = sizes.context
    try:
        options = Options.model_validate(found | {"space": space})
    except ValidationError as error:
        faults = "; ".join(e["msg"] for e in error.errors())
        raise Mismatch(
            f"sizes that cannot be: {faults}", "The file is damaged or of another system."
        ) from None
    return options, Assets(
        init={n: v.float() if v.is_floating_point() else v for n, v in init.items()}
    )


def _prompts(
    init: Mapping[str, Tensor], space: str, sizes: Sizes, text_prompts: int
) -> dict[str, object]:
    table, video = init.get("prompts.space.table"), init.get("prompts.video")
    if (
        table is None
        or video is None
        or (table.ndim, video.ndim) != (2 if space == "transformer" else 3, 3)
    ):
        raise Mismatch("no prompts inside", "Give a checkpoint of knightyxp/DGL.")
    found: dict[str, object] = {
        "global_prompts": video.shape[1],
        "layers": table.shape[-1] // sizes.vision_width,
    }
    if space == "linear":
        own = table.shape[1]
        return found | {
            "frame_prompts": own,
            "text_prompts": text_prompts if text_prompts // 2 <= 2 * own else 2 * own,
        }
    frames, rest = divmod(len(table) - text_prompts, video.shape[1])
    if rest or frames < 1:
        raise Mismatch(
            f"{len(table)} rows of prompts cannot be {text_prompts} of texts and {video.shape[1]}"
            " of each frame",
            f"Only files with {text_prompts} text prompts are understood, which all published ones"
            " have.",
        )
    longer = {"words": _LONG} if frames == _LONG else {}
    return (
        found
        | longer
        | {
            "frame_prompts": video.shape[1],
            "frames": frames,
            "text_prompts": text_prompts,
        }
    )


def export_checkpoint(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict as the published program has it, without the prefix of a distributed run."""
    named = published_names(options, state)
    named[_POSITIONS] = torch.arange(len(state["clip.visual.positional_embedding"]))[None]
    return named


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """The whole content of a published file, as of a distributed run. There is no optimizer in it:
    load it there with `load_from_pretrained 1`. Raises Mismatch for sizes that the published
    program cannot run or the file cannot say.
    """
    _check_form(options, state)
    best = training.get("best_acc1", (training.get("scores") or {}).get("t2v_r1", 0.0))
    return {
        "epoch": int(training.get("epoch", 0)),
        "global_step": int(training.get("step", 0)),
        "arch": ARCH,
        "state_dict": {
            _DDP + name: value for name, value in export_checkpoint(options, state).items()
        },
        "best_acc1": float(best),
    }


def _check_form(options: Options, state: Mapping[str, Tensor]) -> None:
    sizes = sizes_of(
        {n.removeprefix("clip."): v for n, v in state.items() if n.startswith("clip.")}
    )
    faults = []
    if options.frame_prompts != options.global_prompts:
        faults.append(
            f"{options.frame_prompts} frame prompts and {options.global_prompts} global ones must"
            " be as many"
        )
    if not sizes.vision_layers <= options.layers <= sizes.text_layers:
        faults.append(
            f"{options.layers} layers of prompts for {sizes.vision_layers} vision and"
            f" {sizes.text_layers} text blocks"
        )
    if options.space == "transformer" and options.text_prompts != _TEXT_PROMPTS:
        faults.append(
            f"{options.text_prompts} text prompts, which the file cannot say, are read as"
            f" {_TEXT_PROMPTS}"
        )
    if faults:
        raise Mismatch(
            f"the published program cannot run it: {'; '.join(faults)}", "Keep it in our own form."
        )


def published_names(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Anything kept by our parameter names (weights, gradients) under the published ones."""
    return to_theirs(values, _rules(options.space))


def optimizer_state(published: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """{our parameter name: its state} of the optimizer in a file; {} if it made no step.

    The states are numbered through four groups: CLIP with decay, without (names with `bias`), then
    prompts likewise; within a group in the order of the state dict. AdamW: step, exp_avg,
    exp_avg_sq; BertAdam: step, next_m, next_v.
    """
    state = state_of(published)
    rules = _rules("transformer" if _UNIFIED in state else "linear")
    names = [name for name in state if name != _POSITIONS]
    ours = {n: next(iter(to_ours({n: state[n]}, rules, _IGNORED)), n) for n in names}
    new = [ours[n].startswith(_NEW) for n in names]
    bias = ["bias" in n for n in names]
    order = sorted(range(len(names)), key=lambda i: (new[i], bias[i], i))
    return {
        ours[names[order[n]]]: dict(values) for n, values in published["optimizer"]["state"].items()
    }
