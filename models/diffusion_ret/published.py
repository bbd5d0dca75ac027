"""Checkpoints of jpthu17/DiffusionRet (`best.pth`, `pytorch_model.bin.<epoch>`,
`pytorch_model.bin.ema.<epoch>`) and ours, both ways, of either stage.

The file is a bare state dict (docs/specs/diffusionret.md, section 14), of the model or of its
moving average:
nothing says which. Its sizes, temporal module and stage are told by its keys. Undecidable: how many
words and frames were read (32 and 12 are assumed), and every setting of the diffusion (50 steps,
cosine, are assumed).

What is not kept: the sinusoid table, which the file holds twice per denoiser. It may be of any
length and must be the sinusoids; written, it has the published 5,000 rows.
`frame_position_embeddings` beside an LSTM, as with DRL.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.base import Assets, Mismatch
from models.clip.sizes import PREFIX, name_of
from models.clip.towers import sizes_of
from models.diffusion_ret.denoiser import sinusoids
from models.diffusion_ret.options import Options
from models.drl.published import ANCHOR, EXTRACTOR, aggregation_of, with_positions
from models.parts.keys import Rule, count_parts, part_of, to_ours, to_theirs
from models.parts.wrappers import bare

RECIPE = "diffusionret_msrvtt_2"  # of pipelines.yaml: how such files were trained
_FIRST_RECIPE = "diffusionret_msrvtt_1"
# what is taken from a recipe, because no file says it: option, why
NOT_IN_FILE = {
    "frames": "the file does not say how many frames were read",
    "words": "the file does not say how many tokens were read",
    "schedule": "the file does not say what noise it learned",
    "diffusion_steps": "the file does not say what noise it learned",
}
SUFFIX = ".pth"
SIDE_FILE = ""
NEVER_KEPT = ("epoch, step and optimizer: its program saves weights alone",)
# what the program does without a choice
IMPLIED: dict[str, object] = {
    "activation": "quick_gelu",
    "masked_softmax": False,
    "sampling_steps": None,
}

_ROWS = 5000  # of the published table
_CLOSE = 2e-3  # two float32 sinusoids of an angle of 5,000; also float16
_LAYERS = r"[02]\.(weight|bias)"
_DENOISERS = {"diffusion_model.": "denoise_t2v.", "diffusion_model_v.": "denoise_v2t."}
_TABLES = ("sequence_pos_encoder.pe", "embed_timestep.sequence_pos_encoder.pe")
_RULES = EXTRACTOR + [
    Rule("text_weight_fc.", "word_weight.", _LAYERS),
    Rule("video_weight_fc.", "frame_weight.", _LAYERS),
    *(Rule(theirs, ours) for theirs, ours in _DENOISERS.items()),
]


def as_published(value: object) -> object:
    """Return the bare state dict that a file holds, whatever it was wrapped in."""
    return bare(value, ANCHOR)


def recognises(value: object) -> bool:
    """Return whether a file that was read is of this system.

    It holds a CLIP, and weight networks that are twice as wide inside as DRL's.
    """
    if (
        not isinstance(value, Mapping)
        or "clip.logit_scale" not in value
        or "clip.text_projection" not in value
    ):
        return False
    hidden = value.get("text_weight_fc.0.weight")
    if not isinstance(hidden, Tensor) or hidden.ndim != 2 or hidden.shape[0] != 2 * hidden.shape[1]:
        return False
    try:
        to_ours(value, _RULES, _tables(value))
    except Mismatch:
        return False
    return True


def recipe_of(published: Mapping[str, object]) -> str:
    """Return the recipe of pipelines.yaml that trains such a file: of the stage it is of."""
    return (
        RECIPE
        if any(str(name).startswith(tuple(_DENOISERS)) for name in published)
        else _FIRST_RECIPE
    )


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Nothing: the file holds neither options nor epoch."""
    return {}


def import_checkpoint(published: Mapping[str, object]) -> tuple[Options, Assets]:
    """Return what `build` needs: the options that the keys tell, and the weights in float32.

    Raises Mismatch naming every key that is unknown, or a table that does not hold the sinusoids.
    """
    tables = _tables(published)
    state = to_ours(published, _RULES, tables)
    for name in tables:
        _check_table(name, published[name])
    init = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    init = with_positions(init)
    sizes = sizes_of(part_of(init, PREFIX))
    is_generative = any(name.startswith(tuple(_DENOISERS.values())) for name in init)
    found: dict[str, object] = {
        "backbone": name_of(sizes),
        "aggregation": aggregation_of(init),
        "stage": "generation" if is_generative else "discrimination",
    }
    if sizes.context < Options().words:
        found["words"] = sizes.context
    if count := count_parts(init, "temporal.transformer.resblocks."):
        found["temporal_layers"] = count
    return Options.model_validate(found), Assets(init=init)


def export_checkpoint(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the bare state dict as the published program saves and reads it."""
    named = published_names(state)
    if options.stage == "generation":
        weight = state["denoise_t2v.q_proj.weight"]
        table = sinusoids(torch.arange(_ROWS, device=weight.device), weight.shape[1])[:, None]
        named |= {prefix + name: table for prefix in _DENOISERS for name in _TABLES}
    return named


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return the whole content of a published file."""
    return export_checkpoint(options, state)


def published_names(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Anything kept by our parameter names (weights, gradients) under the published ones."""
    return to_theirs(values, _RULES)


def _tables(state: Mapping[str, object]) -> dict[str, str]:
    """Say of each sinusoid table in the file why we do not need it."""
    names = [prefix + name for prefix in _DENOISERS for name in _TABLES]
    return {name: "computed where it is needed" for name in names if name in state}


def _check_table(name: str, table: object) -> None:
    """Raise Mismatch unless the table is one of sinusoids, (n, 1, D) of any length."""
    if (
        isinstance(table, Tensor)
        and table.ndim == 3
        and table.shape[1] == 1
        and table.shape[2] % 2 == 0
    ):
        rows = sinusoids(torch.arange(len(table)), table.shape[2])
        if torch.allclose(table[:, 0].float(), rows, atol=_CLOSE):
            return
    raise Mismatch(
        f"{name} is not the table of sinusoids that every published denoiser has",
        "The file is damaged, or its program was changed; a model that learnt another table cannot"
        " be run here.",
    )
