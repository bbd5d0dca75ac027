"""The CLIP that a system is built around: from its own checkpoint, from CLIP's weights, or new."""

from collections.abc import Mapping
from typing import Literal, Protocol

from torch import Tensor

from models.base import Assets, Inputs, Mismatch, Padding
from models.clip.sizes import BACKBONES, PREFIX, Sizes, Variant
from models.clip.towers import CLIP, sizes_of
from models.parts.keys import part_of


class Backbone(Protocol):
    """What the options of a system say about its CLIP: the name of a ViT, or "given"."""

    backbone: str
    activation: Literal["quick_gelu", "gelu"]


class Lengths(Protocol):
    """What the options of a system say about the texts and videos that its CLIP reads."""

    words: int
    frames: int


def inputs_of(options: Lengths, sizes: Sizes, padding: Padding) -> Inputs:
    """Return what a model around a CLIP reads: its token ids, and frames of its size."""
    return Inputs(
        text="clip_bpe",
        video="frames",
        tokens=options.words,
        frames=options.frames,
        size=sizes.pixels,
        padding=padding,
    )


def build_clip(options: Backbone, assets: Assets, half_rounding: bool = False) -> CLIP:
    """Return the CLIP inside `assets.init`, else the one of `assets.clip`, else an untrained one.

    half_rounding: round `assets.clip` through float16 where the published programs do. Raises
    Mismatch if the weights belong to a ResNet or to another backbone than the options name, if
    they lack parts, or if there are neither weights nor a name.
    """
    variant = Variant(activation=options.activation)
    if assets.init is not None:
        return _rebuild(options.backbone, assets.init, variant)
    if assets.clip is not None:
        _check_backbone(options.backbone, sizes_of(assets.clip))
        return CLIP.from_state_dict(assets.clip, variant, half_rounding=half_rounding)
    if options.backbone not in BACKBONES:
        raise Mismatch(
            f"backbone: {options.backbone}, but there are no weights",
            "Give weights to start from, or name a backbone.",
        )
    return CLIP(BACKBONES[options.backbone], variant)


def _rebuild(backbone: str, init: Mapping[str, Tensor], variant: Variant) -> CLIP:
    """Return the CLIP inside the weights of a whole model. Raises Mismatch if it is not all
    there.
    """
    weights = part_of(init, PREFIX)
    try:
        sizes = sizes_of(weights)
        clip = CLIP.from_state_dict(weights, variant, half_rounding=False)
    except Mismatch as error:
        raise Mismatch(
            f"of {len(init):,} weights {len(weights):,} are of a CLIP ({PREFIX}*): {error.what}",
            "Use weights of a whole model with these options.",
        ) from error
    _check_backbone(backbone, sizes)
    return clip


def _check_backbone(name: str, sizes: Sizes) -> None:
    """Raise Mismatch unless the sizes are those of the ViT that the options name."""
    if not sizes.patch:
        raise Mismatch(
            "weights of a ResNet, whose vision tower has no tokens to work on",
            "Use weights of a ViT.",
        )
    named = BACKBONES.get(name)
    if named is not None and sizes != named:
        raise Mismatch(
            f"not the weights of {name}: {_describe_difference(sizes, named)}",
            "Give weights of this size, or set backbone to that of the weights (any ViT: given).",
        )


def _describe_difference(sizes: Sizes, named: Sizes) -> str:
    actual = vars(sizes)
    expected = vars(named)
    return "; ".join(
        f"{field} {actual[field]}, not {value}"
        for field, value in expected.items()
        if actual[field] != value
    )
