"""CLIP: a vision tower, a text tower and the space they share, in parts for systems to combine.

Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
sections 2.4 and 2.5. Names and shapes: openai/CLIP: clip/model.py, so published weights load under
their own names (docs/specs/clip-backbone.md).

Where we differ
- Batch first, fused attention, QuickGELU inside the products (models/clip/blocks.py).
- uint8 frames are normalised here, on the device; the published code does it on the CPU before
  collating.
- A plain forward computes the last block of a ViT for the class token alone, because nothing else
  of it is read.
- Half precision is a rounding of the weights (`round_to_half`); the arithmetic stays float32 or
  autocast.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Mismatch
from models.clip.blocks import Attention, LayerNorm, Transformer, causal_mask
from models.clip.pixels import Pixels
from models.clip.resnet import ModifiedResNet
from models.clip.sizes import HEAD_WIDTH, OPENAI, Sizes, Variant
from models.parts.keys import count_parts
from models.parts.unallocated import unallocated

_FIX = (
    "Is it a CLIP checkpoint? Names must be OpenAI's; models/clip/published.py renames those of"
    " others."
)
_LOGIT_SCALE = math.log(1 / 0.07)


class VisionTransformer(nn.Module):
    """The vision tower. By hand: `embed`, every block of `blocks`, `project`."""

    def __init__(self, sizes: Sizes, variant: Variant):
        super().__init__()
        width = sizes.vision_width
        scale = width**-0.5
        heads = width // variant.head_width
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(sizes.grid**2 + 1, width))
        self.proj = nn.Parameter(scale * torch.randn(width, sizes.embed))
        self.pixels = Pixels(sizes.pixels, variant)
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, sizes.vision_layers, heads, variant.activation)
        self.ln_post = LayerNorm(width)

    @property
    def blocks(self) -> nn.ModuleList:
        """The attention blocks in their order."""
        return self.transformer.resblocks

    def patches(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> patches (N, P, W), row by row, without positions."""
        pixels = self.pixels(frames).to(self.conv1.weight.dtype)  # (N, 3, S, S)
        return self.conv1(pixels).flatten(2).transpose(1, 2)

    def place(self, patches: Tensor) -> Tensor:
        """Patch tokens (N, P, W) -> (N, 1+P, W): behind the class token, with positions, normed."""
        class_token = self.class_embedding.expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], 1)  # (N, 1+P, W)
        tokens = self.ln_pre(tokens + self.positional_embedding)
        return tokens.to(self.proj.dtype)  # as the blocks: float16 only where the weights are

    def embed(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> what the first block reads, (N, 1+P, W)."""
        return self.place(self.patches(frames))

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens (..., W) in the joint space, (..., D), not normalised to length 1."""
        return self.ln_post(tokens) @ self.proj

    def forward(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> (N, D): class tokens, not normalised to length 1."""
        x = self.embed(frames)  # (N, 1+P, W)
        for block in self.blocks[:-1]:
            x = block(x)
        class_token = self.blocks[-1].first(x)[:, 0]  # (N, W)
        return self.project(class_token)


class CLIP(nn.Module):
    """Both towers.

    `visual` is a VisionTransformer or a ModifiedResNet; the parts of the text tower are methods
    here. Raises Mismatch for sizes that no CLIP can have.
    """

    def __init__(self, sizes: Sizes, variant: Variant = OPENAI):
        super().__init__()
        _check(sizes, variant)
        self.sizes = sizes
        self.variant = variant
        width = sizes.text_width
        heads = width // HEAD_WIDTH
        vision_tower = VisionTransformer if sizes.patch else ModifiedResNet
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context, width))
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed))
        self.logit_scale = nn.Parameter(torch.tensor(_LOGIT_SCALE))
        self.visual = vision_tower(sizes, variant)
        self.transformer = Transformer(width, sizes.text_layers, heads, variant.activation)
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.ln_final = LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], variant: Variant = OPENAI, half_rounding: bool = True
    ) -> "CLIP":
        """Return the model these weights belong to, in float32 and in memory of its own.

        All sizes come from the shapes. half_rounding: what the published programs keep in float16
        loses the digits it loses there (`round_to_half`); OpenAI's own files are stored that way
        and do not change. Raises Mismatch that names everything that does not fit.
        """
        with unallocated():
            model = cls(sizes_of(state), variant)
        _check_names(model.state_dict(), state)
        copied = {}
        for name, value in state.items():
            dtype = torch.float32 if value.is_floating_point() else value.dtype
            copied[name] = value.to(dtype, copy=True)
        model.load_state_dict(copied, assign=True)
        if half_rounding:
            round_to_half(model)
        return model

    @property
    def text_blocks(self) -> nn.ModuleList:
        """The attention blocks of the text tower in their order."""
        return self.transformer.resblocks

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> what the first block reads, (B, L, W).

        Raises Mismatch if L is beyond the context.
        """
        length = ids.shape[1]
        longest = self.positional_embedding.shape[0]
        if length > longest:
            raise Mismatch(
                f"texts of {length} tokens, the text tower reads {longest}",
                f"Set words to {longest} or less.",
            )
        tokens = self.token_embedding(ids) + self.positional_embedding[:length]
        return tokens.to(self.text_projection.dtype)

    def project_text(self, tokens: Tensor) -> Tensor:
        """Return tokens (..., W) in the joint space, (..., D), not normalised to length 1."""
        return self.ln_final(tokens) @ self.text_projection

    def read(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Token ids (B, L) through all blocks, not yet projected: (B, L, W).

        real (B, L) bool hides the padding from attention too (DiffusionRet); that does not change
        the rows before the padding.
        """
        mask = causal_mask(ids.shape[1], real, ids.device)
        return self.transformer(self.embed_text(ids), mask)

    def encode_words(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Token ids (B, L) -> every token in the joint space, (B, L, D)."""
        return self.project_text(self.read(ids, real))

    def encode_text(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Token ids (B, L) -> end tokens in the joint space, (B, D), not normalised to length 1."""
        return self.project_text(end_row(ids, self.read(ids, real)))

    def encode_image(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> (N, D), not normalised to length 1."""
        return self.visual(frames)

    def forward(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Cosines of N frames with B texts (B, L), times exp(logit_scale): (N, B)."""
        image = F.normalize(self.encode_image(frames), dim=-1)
        text = F.normalize(self.encode_text(ids), dim=-1)
        return self.logit_scale.exp() * image @ text.T


def end_row(ids: Tensor, tokens: Tensor) -> Tensor:
    """Return each text's end token, the first of its largest id.

    ids (B, L), tokens (B, L, X) -> (B, X).
    """
    rows = torch.arange(len(ids), device=ids.device)
    return tokens[rows, ids.argmax(-1)]


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round through float16, in place, what published programs hold in it (`half_parameters`)."""
    for value in half_parameters(module):
        value.copy_(value.half())


@torch.no_grad()
def keep_in_half(module: nn.Module) -> None:
    """Store in float16, for good, what published programs hold in it (`half_parameters`)."""
    for value in half_parameters(module):
        value.data = value.data.half()


def full_precision(like: Tensor) -> AbstractContextManager:
    """Return a context without autocast on the device of `like` (...).

    As published, everything behind the towers is float32.
    """
    return torch.autocast(like.device.type, enabled=False)


def half_arithmetic(is_on: bool, like: Tensor) -> AbstractContextManager:
    """Return a context of float16 arithmetic on the device of `like` (...); else one that changes
    nothing.

    What is stored in float16 can be multiplied with float32 only inside it.
    """
    return torch.autocast(like.device.type, torch.float16) if is_on else nullcontext()


def half_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that published programs hold in float16, of whatever shape.

    These are weights and biases of convolutions, linear layers and attention, and both
    projections. Norms, embeddings and logit_scale keep all their digits.
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
    """Return the sizes that the shapes of a state dict with OpenAI's names tell.

    Raises Mismatch if entries that tell them are missing or have another number of dimensions.
    """
    is_vit = "visual.proj" in state
    positions = "visual.positional_embedding" if is_vit else "visual.attnpool.positional_embedding"
    dimensions = {
        "visual.conv1.weight": 4,
        positions: 2,
        "text_projection": 2,
        "positional_embedding": 2,
        "token_embedding.weight": 2,
        "ln_final.weight": 1,
    }
    missing = [name for name in dimensions if name not in state]
    if missing:
        raise Mismatch(
            f"{len(state):,} entries, {len(missing)} missing: {', '.join(missing)}", _FIX
        )
    shapes = {name: tuple(state[name].shape) for name in dimensions}
    odd = [f"{name} {shapes[name]}" for name, n in dimensions.items() if len(shapes[name]) != n]
    if odd:
        raise Mismatch(f"shapes that no CLIP has: {', '.join(odd)}", _FIX)
    width, _, _, patch = shapes["visual.conv1.weight"]
    n_patches = max(shapes[positions][0] - 1, 0)
    grid = math.isqrt(n_patches)
    if is_vit:
        pixels = grid * patch
        layers = count_parts(state, "visual.transformer.resblocks.")
    else:
        pixels = grid * 32
        width = 2 * width  # the first convolution of a ResNet gives half its width
        layers = tuple(count_parts(state, f"visual.layer{n}.") for n in (1, 2, 3, 4))
    return Sizes(
        embed=shapes["text_projection"][1],
        pixels=pixels,
        vision_width=width,
        vision_layers=layers,
        patch=patch if is_vit else 0,
        text_width=shapes["ln_final.weight"][0],
        text_layers=count_parts(state, "transformer.resblocks."),
        context=shapes["positional_embedding"][0],
        vocabulary=shapes["token_embedding.weight"][0],
    )


def _check(sizes: Sizes, variant: Variant) -> None:
    """Raise Mismatch for widths that do not divide into heads and for towers without blocks.

    They would fail far from their cause, or not at all.
    """
    if sizes.patch:
        widths = [("vision width", sizes.vision_width, variant.head_width)]
        layers = [sizes.vision_layers, sizes.text_layers]
    else:
        widths = [("vision width", 32 * sizes.vision_width, HEAD_WIDTH)]
        layers = [*sizes.vision_layers, sizes.text_layers]
    widths.append(("text width", sizes.text_width, HEAD_WIDTH))
    faults = [
        f"{name} {value} is no positive multiple of {unit}"
        for name, value, unit in widths
        if value < 1 or value % unit
    ]
    if min(layers) < 1:
        faults.append("a tower without blocks")
    if sizes.grid < 1:
        faults.append("no positions for patches")
    if faults:
        raise Mismatch(f"not the sizes of a CLIP: {'; '.join(faults)}", _FIX)


def _check_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise Mismatch that lists missing and unknown names and shapes that differ."""
    missing = sorted(own.keys() - given.keys())
    unknown = sorted(given.keys() - own.keys())
    faults = [f"missing: {name} {tuple(own[name].shape)}" for name in missing]
    faults += [f"unknown: {name}" for name in unknown]
    for name, value in own.items():
        if name in given and given[name].shape != value.shape:
            faults.append(f"{name} is {tuple(given[name].shape)}, not {tuple(value.shape)}")
    if faults:
        raise Mismatch(
            f"{len(given):,} entries, {len(faults)} do not fit: {'; '.join(faults)}", _FIX
        )
