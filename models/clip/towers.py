"""CLIP: a vision tower, a text tower and the space they share, as parts that systems build their
own loops from.

Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
sections 2.4 and 2.5. Names and shapes: openai/CLIP: clip/model.py, so published weights load under
their own names (docs/specs/clip-backbone.md). Where we differ
- Batch first, fused attention, QuickGELU inside the products (models/clip/blocks.py).
- uint8 frames are normalised here, on the device; the published code does it on the CPU before
  collating.
- A plain forward computes the last block of a ViT for the class token alone: nothing else of it is
  read.
- Half precision is a rounding of the weights (`round_to_half`), the arithmetic stays float32 or
  autocast.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Mismatch
from models.clip.blocks import Attention, LayerNorm, Transformer, causal_mask
from models.clip.pixels import Pixels
from models.clip.resnet import ModifiedResNet
from models.clip.sizes import HEAD_WIDTH, OPENAI, Sizes, Variant

_WHOSE = (
    "Is it a CLIP checkpoint? Names must be OpenAI's; models/clip/published.py renames those of"
    " others."
)
_LOGIT_SCALE = math.log(1 / 0.07)


class VisionTransformer(nn.Module):
    """Frames -> (N, D); or by hand: `embed`, every block of `blocks`, `project`."""

    def __init__(self, sizes: Sizes, variant: Variant):
        super().__init__()
        width, scale = sizes.vision_width, sizes.vision_width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(sizes.grid**2 + 1, width))
        self.proj = nn.Parameter(scale * torch.randn(width, sizes.embed))
        self.pixels = Pixels(sizes.pixels, variant)
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.ln_pre = LayerNorm(width)
        heads = width // variant.head_width
        self.transformer = Transformer(width, sizes.vision_layers, heads, variant.activation)
        self.ln_post = LayerNorm(width)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.transformer.resblocks

    def patches(self, frames: Tensor) -> Tensor:
        """The tokens of the patches, row by row, (N, P, W), without positions. Frames as `Pixels`
        takes them.
        """
        return (
            self.conv1(self.pixels(frames).to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        )

    def place(self, patches: Tensor) -> Tensor:
        """Patch tokens (N, P, W) behind the class token, with positions, normed: (N, 1+P, W), ready
        for the blocks.
        """
        top = self.class_embedding.expand(len(patches), 1, -1)
        placed = torch.cat([top, patches], 1) + self.positional_embedding
        return self.ln_pre(placed).to(
            self.proj.dtype
        )  # the blocks' own: float16 only where the weights are

    def embed(self, frames: Tensor) -> Tensor:
        """What the first block reads, (N, 1+P, W). Frames: uint8 (N, S, S, 3), or normalised floats
        (N, 3, S, S).
        """
        return self.place(self.patches(frames))

    def project(self, tokens: Tensor) -> Tensor:
        """(..., W) -> (..., D), not normalised to length 1."""
        return self.ln_post(tokens) @ self.proj

    def forward(self, frames: Tensor) -> Tensor:
        """The class token of each frame in the joint space, (N, D), not normalised to length 1."""
        x = self.embed(frames)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.project(self.blocks[-1].first(x)[:, 0])


class CLIP(nn.Module):
    """Both towers. `visual` is a VisionTransformer or a ModifiedResNet; the text tower's parts are
    methods here.
    """

    def __init__(self, sizes: Sizes, variant: Variant = OPENAI):
        super().__init__()
        _check(sizes, variant)
        self.sizes, self.variant = sizes, variant
        width = sizes.text_width
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context, width))
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed))
        self.logit_scale = nn.Parameter(torch.tensor(_LOGIT_SCALE))
        self.visual = (VisionTransformer if sizes.patch else ModifiedResNet)(sizes, variant)
        self.transformer = Transformer(
            width, sizes.text_layers, width // HEAD_WIDTH, variant.activation
        )
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.ln_final = LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], variant: Variant = OPENAI, half_rounding: bool = True
    ) -> "CLIP":
        """The model these weights are of, in float32 and in memory of its own; all sizes come from
        their shapes.

        half_rounding: what the published programs keep in float16 loses the digits it loses there
        (`round_to_half`); nothing changes for OpenAI's own files, which are stored that way. Raises
        Mismatch naming all that does not fit.
        """
        with torch.device("meta"):
            model = cls(sizes_of(state), variant)
        _check_names(model.state_dict(), state)
        own = {
            n: v.to(torch.float32 if v.is_floating_point() else v.dtype, copy=True)
            for n, v in state.items()
        }
        model.load_state_dict(own, assign=True)
        if half_rounding:
            round_to_half(model)
        return model

    @property
    def text_blocks(self) -> nn.ModuleList:
        return self.transformer.resblocks

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, L), L at most the context -> what the first block reads, (B, L, W)."""
        length, longest = ids.shape[1], self.positional_embedding.shape[0]
        if length > longest:
            raise Mismatch(
                f"texts of {length} tokens, the text tower reads {longest}",
                f"Set words to {longest} or less.",
            )
        placed = self.token_embedding(ids) + self.positional_embedding[:length]
        return placed.to(self.text_projection.dtype)

    def project_text(self, tokens: Tensor) -> Tensor:
        """(..., W) -> (..., D), not normalised to length 1."""
        return self.ln_final(tokens) @ self.text_projection

    def read(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Ids (B, L) through all blocks, (B, L, W), not yet projected.

        real: (B, L) bool hides the padding from attention too (DiffusionRet); rows before it do not
        change by that.
        """
        return self.transformer(self.embed_text(ids), causal_mask(ids.shape[1], real, ids.device))

    def encode_words(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Every token in the joint space, (B, L, D)."""
        return self.project_text(self.read(ids, real))

    def encode_text(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """The sentences, (B, D), not normalised to length 1: the end token of each."""
        return self.project_text(end_row(ids, self.read(ids, real)))

    def encode_image(self, frames: Tensor) -> Tensor:
        """(N, D), not normalised to length 1. Frames: uint8 (N, S, S, 3), or normalised floats (N,
        3, S, S).
        """
        return self.visual(frames)

    def forward(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Cosines of all frames with all texts, times exp(logit_scale): (N, B)."""
        image, text = (
            F.normalize(self.encode_image(frames), dim=-1),
            F.normalize(self.encode_text(ids), dim=-1),
        )
        return self.logit_scale.exp() * image @ text.T


def end_row(ids: Tensor, tokens: Tensor) -> Tensor:
    """The row of each text's end token, the first of the largest id: ids (B, L), tokens (B, L, X)
    -> (B, X).
    """
    return tokens[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round through float16, in place, what published programs hold in it (`half_parameters`)."""
    for value in half_parameters(module):
        value.copy_(value.half())


def half_parameters(module: nn.Module) -> list[nn.Parameter]:
    """What published programs hold in float16: weights and biases of convolutions, linear layers
    and attention, and both projections. Norms, embeddings and logit_scale keep all their digits.
    """
    found: list[nn.Parameter] = []
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            found += [part.weight] if part.bias is None else [part.weight, part.bias]
        elif isinstance(part, Attention):
            found += [part.in_proj_weight, part.in_proj_bias]
        elif isinstance(part, VisionTransformer):
            found.append(part.proj)
        elif isinstance(part, CLIP):
            found.append(part.text_projection)
    return found


def sizes_of(state: Mapping[str, Tensor]) -> Sizes:
    """The sizes that a state dict with OpenAI's names has. Mismatch if it lacks what tells them."""
    is_vit = "visual.proj" in state
    grid = "visual.positional_embedding" if is_vit else "visual.attnpool.positional_embedding"
    telling = {
        "visual.conv1.weight": 4,
        grid: 2,
        "text_projection": 2,
        "positional_embedding": 2,
        "token_embedding.weight": 2,
        "ln_final.weight": 1,
    }
    if missing := [name for name in telling if name not in state]:
        raise Mismatch(
            f"{len(state):,} entries, {len(missing)} missing: {', '.join(missing)}", _WHOSE
        )
    shapes = {name: tuple(state[name].shape) for name in telling}
    if odd := [f"{name} {shapes[name]}" for name, n in telling.items() if len(shapes[name]) != n]:
        raise Mismatch(f"shapes that no CLIP has: {', '.join(odd)}", _WHOSE)
    width, _, _, patch = shapes["visual.conv1.weight"]
    side = math.isqrt(max(shapes[grid][0] - 1, 0))
    return Sizes(
        embed=shapes["text_projection"][1],
        pixels=side * (patch if is_vit else 32),
        vision_width=(
            width if is_vit else 2 * width
        ),  # the first convolution of a ResNet gives half its width
        vision_layers=_count(state, "visual.transformer.resblocks.") if is_vit else _stages(state),
        patch=patch if is_vit else 0,
        text_width=shapes["ln_final.weight"][0],
        text_layers=_count(state, "transformer.resblocks."),
        context=shapes["positional_embedding"][0],
        vocabulary=shapes["token_embedding.weight"][0],
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different parts there are directly below the prefix."""
    return len(
        {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    )


def _stages(state: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    one, two, three, four = (_count(state, f"visual.layer{n}.") for n in (1, 2, 3, 4))
    return one, two, three, four


def _check(sizes: Sizes, variant: Variant) -> None:
    """Numbers that cannot be divided into heads or layers would fail far from their cause, or not
    at all.
    """
    layers = (
        sizes.vision_layers if isinstance(sizes.vision_layers, tuple) else (sizes.vision_layers,)
    )
    width, per_head = (
        (sizes.vision_width, variant.head_width)
        if sizes.patch
        else (32 * sizes.vision_width, HEAD_WIDTH)
    )
    faults = [
        f"{name} {value} is no positive multiple of {unit}"
        for name, value, unit in (
            ("vision width", width, per_head),
            ("text width", sizes.text_width, HEAD_WIDTH),
        )
        if value < 1 or value % unit
    ]
    faults += ["a tower without blocks"] if min(*layers, sizes.text_layers) < 1 else []
    faults += ["no positions for patches"] if sizes.grid < 1 else []
    if faults:
        raise Mismatch(f"not the sizes of a CLIP: {'; '.join(faults)}", _WHOSE)


def _check_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    faults = [
        f"missing: {name} {tuple(own[name].shape)}" for name in sorted(own.keys() - given.keys())
    ]
    faults += [f"unknown: {name}" for name in sorted(given.keys() - own.keys())]
    faults += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    if faults:
        raise Mismatch(
            f"{len(given):,} entries, {len(faults)} do not fit: {'; '.join(faults)}", _WHOSE
        )
