"""The one way from weights and options to a CLIP."""

from types import SimpleNamespace

import pytest
import torch

from models.base import Assets, Mismatch
from models.clip.build import build_clip
from models.clip.towers import CLIP
from tests.models.clip.small_clip import RESNET, small_clip


def options(backbone: str = "given", activation: str = "quick_gelu") -> SimpleNamespace:
    return SimpleNamespace(backbone=backbone, activation=activation)


def inside_a_system(clip: CLIP) -> dict[str, torch.Tensor]:
    weights = {f"clip.{name}": value for name, value in clip.state_dict().items()}
    return weights | {"head.weight": torch.zeros(2, 2)}


def same(clip: CLIP, other: CLIP) -> bool:
    pairs = zip(clip.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_clip_inside_a_system_is_taken_as_it_is_even_with_half_rounding() -> None:
    clip = small_clip()

    found = build_clip(options(), Assets(init=inside_a_system(clip)), half_rounding=True)

    assert same(found, clip)


def test_a_clip_alone_is_rounded_only_if_asked_for() -> None:
    clip = small_clip()
    assets = Assets(clip=clip.state_dict())

    assert same(build_clip(options(), assets), clip)
    rounded = build_clip(options(), assets, half_rounding=True)
    assert torch.equal(rounded.visual.proj, clip.visual.proj.half().float())


def test_a_system_goes_before_a_clip() -> None:
    first, second = small_clip(seed=1), small_clip(seed=2)

    found = build_clip(options(), Assets(init=inside_a_system(first), clip=second.state_dict()))

    assert same(found, first)


def test_without_weights_the_named_size_is_built_with_the_activation_of_the_options() -> None:
    found = build_clip(options("tiny", "gelu"), Assets())

    assert found.sizes.pixels == 64
    assert found.visual.blocks[0].mlp.activation == "gelu"


@pytest.mark.parametrize(("assets", "backbone", "told"), [
    (Assets(), "given", "backbone: given, but there are no weights"),
    (Assets(clip=small_clip().state_dict()), "tiny", "not the weights of tiny: embed 16, not 64"),
    (Assets(clip=small_clip(RESNET).state_dict()), "given", "weights of a ResNet"),
    (Assets(init=inside_a_system(small_clip(RESNET))), "given", "weights of a ResNet"),
    (Assets(init={"head.weight": torch.zeros(1)}), "given", "of 1 weights 0 are of a CLIP"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(assets: Assets, backbone: str, told: str) -> None:
    with pytest.raises(Mismatch, match=told):
        build_clip(options(backbone), assets)


def test_a_weight_that_a_checkpoint_lacks_is_named_with_a_fix_for_checkpoints() -> None:
    weights = inside_a_system(small_clip())
    del weights["clip.visual.ln_post.bias"]

    with pytest.raises(Mismatch, match=r"missing: visual\.ln_post\.bias") as caught:
        build_clip(options(), Assets(init=weights))

    assert caught.value.fix == "Use weights of a whole model with these options."
