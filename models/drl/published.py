"""Checkpoints of foolwood/DRL and alro923/DRL and ours, both ways.

The file, `pytorch_model.bin.<epoch>` or `best.pth`, is a bare state dict (docs/specs/drl.md,
section 16); its keys tell its configuration. Files written by a GPU run hold CLIP's matrices in
float16: here they become float32, and nothing is lost.
Undecidable: without a head it is dp or ti (dp is assumed; the weights are the same), and how many
words and frames were read (32 and 12 are assumed).

`frame_position_embeddings` beside an LSTM, which nothing reads, stays in the model for files that
go back; a file without it gets CLIP's own positions, where the published program has them from.
"""

from collections.abc import Mapping

from torch import Tensor

from models.base import Assets, Mismatch
from models.clip.sizes import PREFIX, name_of
from models.clip.towers import sizes_of
from models.drl.options import Options
from models.parts.keys import PARAMETER, Rule, count_parts, part_of, to_ours, to_theirs
from models.parts.wrappers import bare

RECIPE = "drl"  # of pipelines.yaml: how such files were trained
# what is taken from a recipe, because no file says it: option, why
NOT_IN_FILE = {
    "frames": "the file does not say how many frames were read",
    "words": "the file does not say how many tokens were read",
    "interaction": "dp and ti have the same weights",
}
SUFFIX = ".bin.0"  # the published program counts epochs here
SIDE_FILE = ""
NEVER_KEPT = ("epoch, step and optimizer: its program saves weights alone",)
IMPLIED: dict[str, object] = {"activation": "quick_gelu"}  # of its CLIP

ANCHOR = "clip.visual.conv1.weight"  # a name that each of these files has
_UNREAD = "temporal.positions.weight"  # beside an LSTM
EXTRACTOR = [  # what DiffusionRet names alike
    Rule(PREFIX, PREFIX),
    Rule("frame_position_embeddings.", "temporal.positions.", "weight"),
    Rule("transformerClip.", "temporal.transformer."),
    Rule("lstm_visual.", "temporal.lstm."),
]
_RULES = EXTRACTOR + [
    Rule("cross.embeddings.position_embeddings.", "cross.positions.", "weight"),
    Rule("cross.transformer.", "cross.transformer."),
    Rule("cross.pooler.ln_pool.", "cross.ln_pool.", PARAMETER),
    Rule("cross.pooler.dense.", "cross.dense.", PARAMETER),
    Rule("similarity_dense.", "cross.similarity.", PARAMETER),
]
_NETWORKS = {"text_weight_fc.": "word_weight.", "video_weight_fc.": "frame_weight."}


def rules(wti_arch: int) -> list[Rule]:
    """Return the names of a state dict, or of a part of one.

    The published networks of arch 1 are single layers, not sequences.
    """
    step = "0." if wti_arch == 1 else ""
    rest = PARAMETER if wti_arch == 1 else rf"[024]\.{PARAMETER}"
    return _RULES + [Rule(theirs, ours + step, rest) for theirs, ours in _NETWORKS.items()]


def as_published(value: object) -> object:
    """Return the bare state dict that a file holds, whatever it was wrapped in."""
    return bare(value, ANCHOR)


def recognises(value: object) -> bool:
    """Return whether a file that was read is of this system.

    It is a bare state dict with CLIP inside and nothing unknown beside.

    DiffusionRet's files are alike, but the hidden layer of its weight networks is twice as wide;
    CLIP4Clip's without a head cannot be told from ours.
    """
    if (
        not isinstance(value, Mapping)
        or "clip.logit_scale" not in value
        or "clip.text_projection" not in value
    ):
        return False
    try:
        to_ours(value, rules(arch_of(value)))
    except Mismatch:
        return False
    hidden = value.get("text_weight_fc.0.weight")
    return hidden is None or hidden.shape[0] == hidden.shape[1]


def arch_of(state: Mapping[str, object]) -> int:
    """Return the `wti_arch` that the names tell; 2 where there are no networks."""
    if "text_weight_fc.weight" in state:
        return 1
    return 3 if "text_weight_fc.4.weight" in state else 2


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Nothing: the file holds neither options nor epoch."""
    return {}


def import_checkpoint(published: Mapping[str, object]) -> tuple[Options, Assets]:
    """Return what `build` needs: the options that the keys tell, and the weights in float32.

    Raises Mismatch naming every key that is unknown.
    """
    arch = arch_of(published)
    state = to_ours(published, rules(arch))
    init = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    init = with_positions(init)
    sizes = sizes_of(part_of(state, PREFIX))
    found: dict[str, object] = {
        "backbone": name_of(sizes),
        "aggregation": aggregation_of(init),
        "interaction": _interaction(init),
    }
    if sizes.context < Options().words:
        found["words"] = sizes.context
    for name, prefix in (("temporal_layers", "temporal."), ("cross_layers", "cross.")):
        if count := count_parts(init, f"{prefix}transformer.resblocks."):
            found[name] = count
    if found["interaction"] == "wti":
        found["wti_arch"] = arch
    options = Options.model_validate(found)
    if found["interaction"] == "dp":
        options.model_fields_set.discard("interaction")  # a recipe that says ti is as right
    return options, Assets(init=init)


def export_checkpoint(options: Options, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the bare state dict as the published program saves and reads it."""
    return published_names(options, state)


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return the whole content of a published file."""
    return export_checkpoint(options, state)


def published_names(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Anything kept by our parameter names (weights, gradients) under the published ones."""
    return to_theirs(values, rules(options.wti_arch))


def with_positions(init: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under our names; beside an LSTM with the positions that nothing reads."""
    if aggregation_of(init) != "seqLSTM" or _UNREAD in init:
        return dict(init)
    return {**init, _UNREAD: init["clip.positional_embedding"].clone()}


def aggregation_of(state: Mapping[str, Tensor]) -> str:
    """Return the option that a state dict under our names tells."""
    if "temporal.lstm.weight_ih_l0" in state:
        return "seqLSTM"
    return "seqTransf" if "temporal.positions.weight" in state else "none"


def _interaction(state: Mapping[str, Tensor]) -> str:
    if "cross.similarity.weight" in state:
        return "xti"
    return "wti" if any(name.startswith("word_weight.") for name in state) else "dp"
