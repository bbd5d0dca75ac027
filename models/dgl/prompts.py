"""The prompts of DGL: learned rows for both towers of CLIP, made in one shared latent space.

Paper: Yang et al., DGL: Dynamic Global-Local Prompt Tuning for Text-Video Retrieval (AAAI 2024),
section 3.2. Published code: knightyxp/DGL: modules/clip.py (docs/specs/dgl.md, section 3). Nothing
here depends on the input: prompts are the same for every text and every video, so they are made
once per step, or once per evaluation.

Where we differ
- The rows behind the end token of a text are not made: causal attention hides them from it
  (docs/specs/dgl.md, section 4). They stay parameters, and in the transformer space they are
  context for all others. In the linear space their projection gets the gradient 0, as published,
  and therefore weight decay.
- Any sizes. The published program fixes the vision width at 768 and needs as many global as frame
  prompts and as many layers of prompts as blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.clip.blocks import Block, quick_gelu
from models.clip.sizes import HEAD_WIDTH, Sizes
from models.dgl.options import Options


class PromptRows(NamedTuple):
    """Prompts in front of each block, and those of the whole video, in front of all blocks.

    text (Lt, prefix, Wt), frames (Lv, T or 1, P, W), video (G, W).
    """

    text: Tensor
    frames: Tensor
    video: Tensor


class Prompts(nn.Module):
    """All that DGL learns: `video` and the rows of `space`."""

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        space = TransformerSpace if options.space == "transformer" else LinearSpace
        self.video = nn.Parameter(_uniform(sizes, 1, options.global_prompts, sizes.vision_width))
        self.space = space(options, sizes)

    def forward(self) -> PromptRows:
        """Return text (Lt, prefix, Wt), frames (Lv, T or 1, P, W) and video (G, W)."""
        text, frames = self.space()
        return PromptRows(text=text, frames=frames, video=self.video[0])


class TransformerSpace(nn.Module):
    """The unified prompt transformer: a table of rows, and one attention block over each layer.

    table (M + T P, L W): first the M rows of texts, then P of each frame; columns l W to (l + 1) W
    belong to layer l.
    """

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        width = sizes.vision_width
        self.n_text = options.text_prompts
        self.prefix = options.prefix
        self.n_frames = options.frames
        self.text_layers = min(options.layers, sizes.text_layers)
        self.vision_layers = min(options.layers, sizes.vision_layers)
        n_rows = options.text_prompts + options.frames * options.frame_prompts
        self.table = nn.Parameter(torch.randn(n_rows, options.layers * width))
        self.block = Block(width, width // HEAD_WIDTH)
        nn.init.xavier_uniform_(self.block.attn.in_proj_weight)
        nn.init.zeros_(self.block.attn.out_proj.bias)
        self.words = TextProjection(width, sizes.text_width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the prompts of texts (Lt, prefix, Wt) and of frames (Lv, T, P, W)."""
        block = self.block
        width = block.attn.out_proj.in_features
        rows = self.table.unflatten(1, (-1, width)).transpose(0, 1)  # (L, M + T P, W)
        # rows behind the words of a text are only context
        read = torch.cat([rows[:, : self.prefix], rows[:, self.n_text :]], 1)  # (L, U, W)
        mixed = read + block.attend(block.ln_1(read), block.ln_1(rows))
        mixed = mixed + block.mlp(block.ln_2(mixed))
        text = mixed[: self.text_layers, : self.prefix]  # (Lt, prefix, W)
        frames = mixed[: self.vision_layers, self.prefix :]  # (Lv, T P, W)
        return self.words(text), frames.unflatten(1, (self.n_frames, -1))


class TextProjection(nn.Module):
    """From the vision width W to the text width Wt: two layers, twice as wide between them."""

    def __init__(self, width: int, text_width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, text_width)

    def forward(self, x: Tensor) -> Tensor:
        """Map prompts from the vision to the text width: (..., W) becomes (..., Wt)."""
        return self.c_proj(quick_gelu(self.c_fc(x)))


class LinearSpace(nn.Module):
    """The unified linear projection: every frame gets the P rows of a layer, texts a projection.

    table (1, P, L W): columns l W to (l + 1) W belong to layer l. It makes 2 P rows for texts
    whatever `text_prompts`.
    """

    def __init__(self, options: Options, sizes: Sizes):
        super().__init__()
        width = sizes.vision_width
        self.prefix = options.prefix
        self.text_layers = min(options.layers, sizes.text_layers)
        self.vision_layers = min(options.layers, sizes.vision_layers)
        self.table = nn.Parameter(_uniform(sizes, 1, options.frame_prompts, options.layers * width))
        self.before = nn.Linear(width, sizes.text_width)
        self.behind = nn.Linear(width, sizes.text_width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the prompts of texts (Lt, prefix, Wt) and of frames (Lv, 1, P, W)."""
        width = self.before.in_features
        rows = self.table[0].unflatten(1, (-1, width)).transpose(0, 1)  # (L, P, W)
        text = rows[: self.text_layers]  # (Lt, P, W)
        # usually no row of `behind` stands in front of the words; called with none, it has the
        # gradient 0 and not None
        n_behind = max(0, self.prefix - rows.shape[1])
        before = self.before(text[:, : self.prefix])
        behind = self.behind(text[:, :n_behind])
        return torch.cat([before, behind], 1), rows[: self.vision_layers, None]


def _uniform(sizes: Sizes, *shape: int) -> Tensor:
    bound = (6 / (3 * sizes.patch**2 + sizes.vision_width)) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound)
