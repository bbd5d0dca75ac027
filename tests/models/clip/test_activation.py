"""Weights that open_clip trained want another activation: every system on CLIP offers it, and both
towers take it.
"""

from collections.abc import Callable

import pytest
from torch import nn

from models.clip.blocks import Mlp
from tests.models.dgl.small_dgl import small_dgl
from tests.models.diffusion_ret.small_diffusion import small_diffusion
from tests.models.drl.small_drl import small_drl


@pytest.mark.parametrize("small", [small_drl, small_dgl, small_diffusion])
def test_activation_of_other_weights_reaches_both_towers(small: Callable[..., nn.Module]) -> None:
    clip = small(activation="gelu").clip

    assert {part.activation for part in clip.visual.modules() if isinstance(part, Mlp)} == {"gelu"}
    assert {part.activation for part in clip.transformer.modules() if isinstance(part, Mlp)} == {
        "gelu"
    }
