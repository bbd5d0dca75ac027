"""Options that the systems on CLIP have in common. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from models.clip.sizes import BACKBONES, Sizes

VITS = ", ".join(name for name, sizes in BACKBONES.items() if sizes.patch)

Activation = Annotated[
    Literal["quick_gelu", "gelu"],
    Field(
        description=(
            "inside CLIP's blocks; gelu: for most weights that open_clip trained (no file says so)"
        )
    ),
]
HalfWeights = Annotated[
    bool,
    Field(
        description=(
            "as published GPU runs: CLIP's matrices are stored and optimised in float16, which is"
            " another optimisation (their second moments underflow); with train.precision float32"
            " (CenterCLIP's program: --precision fp16)"
        )
    ),
]
TokenPadding = Annotated[
    Literal["zero", "left_out"],
    Field(
        description=(
            "token-wise: zero: padded words and frames have similarity 0 and may be the best"
            " match, as published; left_out: only real ones are compared"
        )
    ),
]


def vit_sizes(backbone: str) -> Sizes | None:
    """Return the sizes of a ViT by its name, or None for "given", where the weights say them.

    Raises ValueError for any other name.
    """
    if backbone == "given":
        return None
    sizes = BACKBONES.get(backbone)
    if sizes is None or not sizes.patch:
        raise ValueError(
            f"backbone {backbone} is not one of {VITS} (or given: the backbone of the weights)"
        )
    return sizes


def check_words(backbone: str, words: int) -> None:
    """Raise ValueError if `backbone` is no ViT, or reads fewer words."""
    sizes = vit_sizes(backbone)
    if sizes and words > sizes.context:
        raise ValueError(f"words is {words}, but {backbone} reads at most {sizes.context} tokens")
