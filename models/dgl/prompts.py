"""The prompts of DGL: learned rows for both towers of CLIP, made in one shared latent space.

Paper: Yang et al., DGL: Dynamic Global-Local Prompt Tuning for Text-Video Retrieval (AAAI 2024),
section 3.2. Published code: knightyxp/DGL: modules/clip.py (docs/specs/dgl.md, section 3). Nothing
here depends on the input: prompts are the same for every text and every video, so they are made
once per step, or once per evaluation.

Where we differ
- The rows behind the end token of a text are not made: causal attention hides them from it
  (docs/specs/dgl.md, section 4). They stay parameters, and in the transformer space they are
    context for all others. In the linear space their projection gets
  the gradient 0, as published, and so weight decay.
- Any sizes: published are vision width 768, as many global as frame prompts, as many layers as
  blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.clip.blocks import Block
from models.clip.sizes import HEAD_WIDTH, Sizes
from models.dgl.options import Options


class Made(NamedTuple):
    """Prompts by block: text (Lt, prefix, Wt), frames (Lv, T or 1, P, W); and video (G, W), in
    front of all blocks.
    """

    text: Tensor
    frames: Tensor
    video: Tensor


class Prompts(nn.Module):
    """() -> Made. `video` and the rows of `space` are all that DGL learns."""

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        self.video = nn.Parameter(_uniform(sizes, 1, options.global_prompts, sizes.vision_width))
        self.space = (Unified if options.space == "transformer" else Linear)(options, sizes)

    def forward(self) -> Made:
        return Made(*self.space(), self.video[0])


class Unified(nn.Module):
    """The unified prompt transformer: a table of rows for texts and frames, one attention block
    over each layer of it.

    table (M + T P, L W): first the M rows of texts, then P of each frame; columns l W to (l + 1) W
    belong to layer l.
    """

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        width = sizes.vision_width
        self.n_text, self.prefix, self.n_frames = (
            options.text_prompts,
            options.prefix,
            options.frames,
        )
        self.layers = _layers(options, sizes)
        rows = options.text_prompts + options.frames * options.frame_prompts
        self.table = nn.Parameter(torch.randn(rows, options.layers * width))
        self.block = Block(width, width // HEAD_WIDTH)
        nn.init.xavier_uniform_(self.block.attn.in_proj_weight)
        nn.init.zeros_(self.block.attn.out_proj.bias)
        self.words = Words(width, sizes.text_width)

    def forward(self) -> tuple[Tensor, Tensor]:
        block, width = self.block, self.block.attn.out_proj.in_features
        rows = self.table.unflatten(1, (-1, width)).transpose(0, 1)  # (L, U, W)
        read = torch.cat(
            [rows[:, : self.prefix], rows[:, self.n_text :]], 1
        )  # those behind a text are only context
        mixed = read + block.attend(block.ln_1(read), block.ln_1(rows))
        mixed = mixed + block.mlp(block.ln_2(mixed))
        text_layers, vision_layers = self.layers
        frames = mixed[:vision_layers, self.prefix :].unflatten(1, (self.n_frames, -1))
        return self.words(mixed[:text_layers, : self.prefix]), frames


class Words(nn.Module):
    """Rows of the vision width W to the text width Wt: two layers, twice as wide between them."""

    def __init__(self, width: int, text_width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, text_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))


class Linear(nn.Module):
    """The unified linear projection: P rows per layer are the prompts of every frame and,
    projected, those of texts.

    table (1, P, L W): columns l W to (l + 1) W belong to layer l. It makes 2 P rows for texts
    whatever `text_prompts`.
    """

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        width = sizes.vision_width
        self.prefix, self.layers = options.prefix, _layers(options, sizes)
        self.table = nn.Parameter(_uniform(sizes, 1, options.frame_prompts, options.layers * width))
        self.before = nn.Linear(width, sizes.text_width)
        self.behind = nn.Linear(width, sizes.text_width)

    def forward(self) -> tuple[Tensor, Tensor]:
        text_layers, vision_layers = self.layers
        rows = (
            self.table[0].unflatten(1, (-1, self.before.in_features)).transpose(0, 1)
        )  # (L, P, W)
        text, n = rows[:text_layers], rows.shape[1]
        # `behind` may have no row in front of the words; called with none, it has a gradient, 0,
        # not None
        text = torch.cat(
            [self.before(text[:, : self.prefix]), self.behind(text[:, : max(0, self.prefix - n)])],
            1,
        )
        return text, rows[:vision_layers, None]


def _layers(options: Options, sizes: Sizes) -> tuple[int, int]:
    """Blocks of the text and of the vision tower that get prompts."""
    return min(options.layers, sizes.text_layers), min(options.layers, sizes.vision_layers)


def _uniform(sizes: Sizes, *shape: int) -> Tensor:
    bound = (6 / (3 * sizes.patch**2 + sizes.vision_width)) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound)
