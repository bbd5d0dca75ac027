"""Frame features of a video in time: mean, sequence transformer, LSTM, transformer over pairs.

Paper: Luo et al., CLIP4Clip (Neurocomputing 2022), section 3.3 (meanP, seqTransf, seqLSTM,
tightTransf); CenterCLIP, DRL and DiffusionRet use the same. Published code: ArrowLuo/CLIP4Clip:
modules/modeling.py, modules/module_cross.py; docs/specs/centerclip.md, section 7,
docs/specs/drl.md, section 5.

Where we differ
- A video without a single real frame has the mean 0, not NaN.
- What an LSTM gives for padding, which nothing reads, is the frame itself.
- Of the last block over pairs, only the row that is read is computed.

Features are (B, T, D), masks (B, T) bool, True for real frames, which come first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.base import Mismatch
from models.clip.blocks import LayerNorm, Transformer, quick_gelu
from models.clip.sizes import HEAD_WIDTH
from models.clip.towers import CLIP

_HIDDEN = -1e6  # added to attention towards padding, as published: all padding stays finite
_STD = 0.02  # of new weights


def mean_direction(frames: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real frames' directions, scaled to length 1 (0 without any).

    (B, T, D), mask (B, T) -> (B, D) float32.
    """
    share = mask / mask.sum(1, keepdim=True).clamp(min=1)  # (B, T)
    directions = F.normalize(frames.float(), dim=-1)  # (B, T, D)
    mean = (directions * share[..., None]).sum(1)  # (B, D)
    return F.normalize(mean, dim=-1)


class Mean(nn.Module):
    """Leaves frames as they are: all that meanP does happens in `mean_direction`."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return frames (B, T, D) as they are."""
        return frames


class Sequence(nn.Module):
    """A transformer over the frames of a video.

    positions: most frames it can read. eps: of the layer norms, 1e-12 in CLIP4Clip and DRL, 1e-5 in
    CenterCLIP. Raises Mismatch for a width that does not divide into heads.
    """

    def __init__(self, width: int, layers: int, positions: int, eps: float = 1e-5):
        super().__init__()
        self.positions = nn.Embedding(positions, width)
        self.transformer = Transformer(width, layers, _count_heads(width), eps=eps)
        nn.init.normal_(self.positions.weight, std=_STD)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return each frame plus what it finds among the real frames, (B, T, D).

        Raises Mismatch for more frames than positions.
        """
        x = frames + _first_positions(self.positions, frames.shape[1])
        return self.transformer(x, _additive_mask(mask, x.dtype)) + frames


class Recurrent(nn.Module):
    """An LSTM over the frames of a video.

    positions (n, W'): what the published programs keep beside the LSTM, and nothing reads. They are
    CLIP's text positions, are never trained, and stay for files that go back.
    """

    def __init__(self, width: int, positions: Tensor):
        super().__init__()
        self.positions = nn.Embedding.from_pretrained(positions.detach().clone())
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return each frame plus what the LSTM says up to it, (B, T, D)."""
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.lstm(packed)
        found, _ = pad_packed_sequence(packed, batch_first=True)
        # published: padding behind the longest video is added to itself; no mask lets it through
        found = torch.cat([found, frames[:, found.shape[1] :]], 1)
        return found + frames


class Tight(nn.Module):
    """A transformer over the sentence and the frames of each pair (tightTransf, DRL's XTI).

    positions: at least 1 + T. heads: by default one per 64 channels. Raises Mismatch for a width
    that does not divide into heads.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        positions: int,
        eps: float = 1e-12,
        dropout: float = 0.1,
        heads: int | None = None,
    ):
        super().__init__()
        self.positions = nn.Embedding(positions, width)
        self.dropout = nn.Dropout(dropout)
        self.transformer = Transformer(width, layers, heads or _count_heads(width), eps=eps)
        self.ln_pool = LayerNorm(width, eps)
        self.dense = nn.Linear(width, width)
        self.similarity = nn.Linear(width, 1)
        for weight in (self.positions.weight, self.dense.weight, self.similarity.weight):
            nn.init.normal_(weight, std=_STD)
        nn.init.zeros_(self.dense.bias)
        nn.init.zeros_(self.similarity.bias)

    def forward(self, sentence: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Sentences (n, D) and videos (m, T, D) with mask (m, T) -> unbounded scores (n, m).

        Raises Mismatch for more frames than there are positions.
        """
        n = len(sentence)
        m = len(frames)
        sentences = sentence[:, None, None].expand(-1, m, -1, -1)  # (n, m, 1, D)
        videos = frames[None].expand(n, -1, -1, -1)  # (n, m, T, D)
        x = torch.cat([sentences, videos], 2).flatten(0, 1)  # (n m, 1+T, D)
        x = self.dropout(x + _first_positions(self.positions, x.shape[1]))
        real = F.pad(mask, (1, 0), value=True).repeat(n, 1)  # (n m, 1+T)
        hidden = _additive_mask(real, x.dtype)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = block(x, hidden)
        top = last.first(x, hidden)[:, 0]  # (n m, D)
        top = self.dense(self.ln_pool(top))
        return self.similarity(quick_gelu(top)).view(n, m)

    def pair_bytes(self, frames: int) -> int:
        """Return the bytes that a pair with T = `frames` needs at its peak.

        Its 1+T tokens are held as they are, normed, as q, k and v, and four times as wide.
        """
        return 4 * (1 + frames) * self.dense.in_features * 10


@torch.no_grad()
def copy_text_tower(clip: CLIP, positions: nn.Embedding, transformer: Transformer) -> None:
    """Start `positions` and `transformer` from CLIP's text positions and first text blocks.

    As many blocks are copied as both have, as published. Raises Mismatch for other widths or
    another number of positions.
    """
    theirs = clip.positional_embedding
    if theirs.shape != positions.weight.shape:
        raise Mismatch(
            f"positions {tuple(positions.weight.shape)} cannot start as CLIP's text positions"
            f" {tuple(theirs.shape)}",
            "Use a backbone whose text tower is as wide as its joint space, or the mean of the"
            " frames.",
        )
    positions.weight.copy_(theirs)
    for own, block in zip(transformer.resblocks, clip.text_blocks, strict=False):
        own.load_state_dict(block.state_dict())


def _count_heads(width: int) -> int:
    """Raises Mismatch if the width does not divide into heads."""
    if width % HEAD_WIDTH:
        raise Mismatch(
            f"features of width {width} for heads of {HEAD_WIDTH}",
            "Use another backbone, or the mean.",
        )
    return width // HEAD_WIDTH


def _first_positions(positions: nn.Embedding, length: int) -> Tensor:
    """Return the first `length` position vectors, (length, D). Raises Mismatch if there are
    fewer.
    """
    if length > positions.num_embeddings:
        raise Mismatch(
            f"{length} positions in time, the weights have {positions.num_embeddings}",
            "Use fewer frames per video.",
        )
    return positions.weight[:length]


def _additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a mask (B, T) bool adds to attention, (B, 1, 1, T): 0 where it may look."""
    least = max(_HIDDEN, torch.finfo(dtype).min)  # float16 ends at 65504
    return torch.where(mask, 0.0, least).to(dtype)[:, None, None]
