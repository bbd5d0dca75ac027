"""Weights of CLIP as OpenAI, open_clip and Hugging Face publish them, under the names of
models/clip/towers.py and back.

OpenAI's names are ours. open_clip has the same, in its training files below `state_dict` and with
`module.` in front, and with `text.` before those of the text tower in models that choose it apart
(mlfoundations/open_clip:
src/open_clip/model.py, CustomTextCLIP). Hugging Face's CLIPModel keeps q, k and v apart and both
projections transposed (huggingface/transformers:
models/clip/convert_clip_original_pytorch_to_hf.py). Reading files is the pipeline's work; here
arrive their values.

What is ignored: sizes, position numbers and causal masks, which are made anew. What no file tells
is the activation:
see `clip_sizes.Variant`. Not supported, and refused by name: towers from timm, SigLIP's
`logit_bias`, tokens of EVA.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.base import Mismatch
from models.parts.keys import Rule, to_ours, to_theirs

_PARAMETER = r"(weight|bias)"
_DISTRIBUTED = "module."
_FIRST = {"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"}
_IGNORED = {
    r"input_resolution|context_length|vocab_size": "the sizes, told by the shapes",
    r"(.*\.)?attn_mask": "the causal mask, made for the length of each text",
    r"(text|vision)_model\.embeddings\.position_ids": "the numbers 0, 1, 2, ...",
}
_PARTS = {
    "self_attn.q_proj": "attn.q_proj",
    "self_attn.k_proj": "attn.k_proj",
    "self_attn.v_proj": "attn.v_proj",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TOWERS = {"text_model": "", "vision_model": "visual."}


def recognises(published: object) -> bool:
    """Whether what was read are weights of a CLIP alone; in files of whole systems its names have a
    prefix.
    """
    state = published.get("state_dict", published) if isinstance(published, Mapping) else None
    if not isinstance(state, Mapping):
        return False
    return any(str(name).removeprefix(_DISTRIBUTED) in _FIRST for name in state)


def import_weights(published: Mapping[str, object]) -> dict[str, Tensor]:
    """A state dict for `CLIP.from_state_dict` from what a published file holds, whoever wrote it.

    The tensors are those given, except q, k and v of Hugging Face, which are put together. Raises
    Mismatch naming every entry that belongs to no CLIP we know.
    """
    state = published.get("state_dict", published)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise Mismatch("no state dict inside", "Give the weights of a CLIP.")
    if all(name.startswith(_DISTRIBUTED) for name in state):
        state = {name.removeprefix(_DISTRIBUTED): value for name, value in state.items()}
    ignored = {
        n: why for n in state for pattern, why in _IGNORED.items() if re.fullmatch(pattern, n)
    }
    if any(name.startswith("text_model.") for name in state):
        layers = {theirs: _count(state, f"{theirs}.encoder.layers.") for theirs in _TOWERS}
        return _stacked(to_ours(state, _hugging_face(layers), ignored))
    if any(name.startswith("text.") for name in state):
        return to_ours(
            state, [Rule("text.", ""), Rule("", "", r"(visual\..+|logit_scale)")], ignored
        )
    return to_ours(state, [Rule("", "")], ignored)


def export_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as transformers.CLIPModel loads them (its position_ids are made when it is
    built).

    Raises Mismatch for ResNet towers, which it does not have. open_clip and OpenAI's program load
    ours as they are.
    """
    if "visual.attnpool.positional_embedding" in state:
        raise Mismatch(
            "a ResNet tower, which CLIPModel has not",
            "Save our state dict: its names are OpenAI's.",
        )
    layers = {
        theirs: _count(state, f"{ours}transformer.resblocks.") for theirs, ours in _TOWERS.items()
    }
    return to_theirs(_apart(state), _hugging_face(layers))


def _hugging_face(layers: Mapping[str, int]) -> list[Rule]:
    """layers: how many blocks each tower has, by the name that Hugging Face gives it."""
    rules = [
        Rule("logit_scale", "logit_scale", ""),
        Rule("text_projection.weight", "text_projection", "", _transposed, _transposed),
        Rule("visual_projection.weight", "visual.proj", "", _transposed, _transposed),
        Rule("text_model.embeddings.token_embedding.", "token_embedding.", "weight"),
        Rule("text_model.embeddings.position_embedding.weight", "positional_embedding", ""),
        Rule("text_model.final_layer_norm.", "ln_final.", _PARAMETER),
        Rule("vision_model.embeddings.class_embedding", "visual.class_embedding", ""),
        Rule("vision_model.embeddings.patch_embedding.", "visual.conv1.", "weight"),
        Rule(
            "vision_model.embeddings.position_embedding.weight", "visual.positional_embedding", ""
        ),
        Rule("vision_model.pre_layrnorm.", "visual.ln_pre.", _PARAMETER),  # their spelling
        Rule("vision_model.post_layernorm.", "visual.ln_post.", _PARAMETER),
    ]
    for theirs, ours in _TOWERS.items():
        for i in range(layers[theirs]):
            block = f"{ours}transformer.resblocks.{i}"
            rules += [
                Rule(f"{theirs}.encoder.layers.{i}.{t}.", f"{block}.{o}.", _PARAMETER)
                for t, o in _PARTS.items()
            ]
    return rules


def _count(state: Mapping[str, object], prefix: str) -> int:
    """How many different parts there are directly below the prefix."""
    return len(
        {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    )


def _stacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v as one matrix, in the place of q."""
    whole, missing = {}, []
    for name, value in state.items():
        if not (found := re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", name)):
            whole[name] = value
            continue
        three = [f"{found[1]}{letter}_proj.{found[3]}" for letter in "qkv"]
        missing += [other for other in three if other not in state]
        if found[2] == "q" and not missing:
            whole[f"{found[1]}in_proj_{found[3]}"] = torch.cat([state[other] for other in three])
    if missing:
        raise Mismatch(
            f"missing: {', '.join(sorted(set(missing)))}",
            "The file is damaged or not a whole CLIP.",
        )
    return whole


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v as matrices of their own, in the place of the one."""
    parts = {}
    for name, value in state.items():
        if not (found := re.fullmatch(r"(.*\.attn\.)in_proj_(weight|bias)", name)):
            parts[name] = value
            continue
        for letter, part in zip("qkv", value.chunk(3), strict=True):
            parts[f"{found[1]}{letter}_proj.{found[2]}"] = (
                part.clone()
            )  # a part alone would be saved with the whole
    return parts


def _transposed(value: Tensor) -> Tensor:
    return value.t().contiguous()
