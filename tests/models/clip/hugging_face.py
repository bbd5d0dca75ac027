"""Our CLIP weights as transformers.CLIPModel names and shapes them."""

from collections.abc import Mapping

from torch import Tensor

_NAMES = {
    "logit_scale": "logit_scale",
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
_PREFIXES = [
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("ln_final.", "text_model.final_layer_norm."),
]
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.": "self_attn.",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def as_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v apart, both projections transposed; every tensor in memory of its own."""
    renamed = {}
    for name, value in state.items():
        theirs = _their_name(name)
        if name in ("text_projection", "visual.proj"):
            renamed[theirs] = value.t().contiguous()
        elif "in_proj_" in theirs:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[theirs.replace("in_proj_", f"{letter}_proj.")] = part.clone()
        else:
            renamed[theirs] = value
    return renamed


def _their_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    prefix, theirs = next(pair for pair in _PREFIXES if name.startswith(pair[0]))
    name = theirs + name.removeprefix(prefix)
    for our_part, their_part in _PARTS.items():
        name = name.replace(our_part, their_part)
    return name
