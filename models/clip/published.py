"""Weights of CLIP as OpenAI, open_clip and Hugging Face publish them, under our names.

Our names (models/clip/towers.py) are OpenAI's. open_clip uses the same ones, in its training files
below `state_dict` and with `module.` in front, and with `text.` before those of the text tower in
models that configure it separately (mlfoundations/open_clip: src/open_clip/model.py,
CustomTextCLIP). Hugging Face's CLIPModel keeps q, k and v apart and both projections transposed
(huggingface/transformers: models/clip/convert_clip_original_pytorch_to_hf.py). Reading the files
is the pipeline's work; this module gets their values.

Ignored: sizes, position numbers and causal masks, which are made anew. No file tells the
activation (see `models.clip.sizes.Variant`). Not supported, and refused by name: towers from timm,
SigLIP's `logit_bias`, tokens of EVA.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.base import Mismatch
from models.parts.keys import PARAMETER, Rule, count_parts, to_ours
from models.parts.wrappers import unwrapped

_ANCHORS = ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")
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
    """Return whether a file's content are the weights of a CLIP, whatever they are wrapped in.

    Files of whole systems hold such weights too, so ask those systems first.
    """
    return unwrapped(published, _ANCHORS) is not None


def import_weights(published: Mapping[str, object]) -> dict[str, Tensor]:
    """Return a state dict for `CLIP.from_state_dict` from the content of a published file.

    The tensors are those given, in their shapes, except that q, k and v of Hugging Face are stacked
    and its projections transposed. Raises Mismatch that names every entry that no CLIP we know has.
    """
    found = unwrapped(published, _ANCHORS)
    state = published if found is None else found[0]
    if not all(isinstance(name, str) for name in state):
        raise Mismatch("no state dict inside", "Give the weights of a CLIP.")
    ignored = {}
    for name in state:
        for pattern, why in _IGNORED.items():
            if re.fullmatch(pattern, name):
                ignored[name] = why
    if any(name.startswith("text_model.") for name in state):
        return _stack(to_ours(state, _hugging_face_rules(state), ignored))
    if any(name.startswith("text.") for name in state):
        rules = [Rule("text.", ""), Rule("", "", r"(visual\..+|logit_scale)")]
        return to_ours(state, rules, ignored)
    return to_ours(state, [Rule("", "")], ignored)


def _hugging_face_rules(state: Mapping[str, object]) -> list[Rule]:
    rules = [
        Rule("logit_scale", "logit_scale", ""),
        Rule("text_projection.weight", "text_projection", "", _transpose),
        Rule("visual_projection.weight", "visual.proj", "", _transpose),
        Rule("text_model.embeddings.token_embedding.", "token_embedding.", "weight"),
        Rule("text_model.embeddings.position_embedding.weight", "positional_embedding", ""),
        Rule("text_model.final_layer_norm.", "ln_final.", PARAMETER),
        Rule("vision_model.embeddings.class_embedding", "visual.class_embedding", ""),
        Rule("vision_model.embeddings.patch_embedding.", "visual.conv1.", "weight"),
        Rule(
            "vision_model.embeddings.position_embedding.weight", "visual.positional_embedding", ""
        ),
        Rule("vision_model.pre_layrnorm.", "visual.ln_pre.", PARAMETER),  # their spelling
        Rule("vision_model.post_layernorm.", "visual.ln_post.", PARAMETER),
    ]
    for tower, prefix in _TOWERS.items():
        for i in range(count_parts(state, f"{tower}.encoder.layers.")):
            theirs = f"{tower}.encoder.layers.{i}"
            ours = f"{prefix}transformer.resblocks.{i}"
            for their_part, our_part in _PARTS.items():
                rules.append(Rule(f"{theirs}.{their_part}.", f"{ours}.{our_part}.", PARAMETER))
    return rules


def _stack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with q, k and v as one matrix, in place of q. Raises Mismatch if one is
    missing.
    """
    stacked = {}
    missing = set()
    for name, value in state.items():
        found = re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", name)
        if not found:
            stacked[name] = value
            continue
        block, letter, kind = found.groups()
        names = [f"{block}{each}_proj.{kind}" for each in "qkv"]
        missing |= {other for other in names if other not in state}
        if letter == "q" and not missing:
            stacked[f"{block}in_proj_{kind}"] = torch.cat([state[other] for other in names])
    if missing:
        raise Mismatch(
            f"missing: {', '.join(sorted(missing))}",
            "The file is damaged or not a whole CLIP.",
        )
    return stacked


def _transpose(value: Tensor) -> Tensor:
    return value.t().contiguous()
