"""The extractor that DRL and DiffusionRet share: CLIP read word by word and frame by frame.

Papers: Wang et al. 2022, Disentangled Representation Learning for Text-Video Retrieval, sections
3.1 and 3.2 (encoders, weighted token-wise interaction); Jin et al., DiffusionRet (ICCV 2023),
section 3.2, uses the same. Published code: foolwood/DRL: tvr/models/modeling.py,
jpthu17/DiffusionRet: tvr/models/modeling.py (docs/specs/drl.md, sections 4 to 6,
docs/specs/diffusionret.md, section 3).

Where we differ, and why
- Weights and directions are made once per text and video; the published evaluations make them
  again in every tile.
- Padded frames are not encoded one by one. Where they count (`padding_counts`), all of them share
  one encoding of an empty picture, which gives the same values as encoding all of them.
- Padded words are not read, except the first one behind the longest text (with DRL's cdcr it may
  win a maximum).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Encoding, Mismatch, RetrievalModel, Shared
from models.clip.blocks import Attention
from models.clip.build import Backbone, inputs_of
from models.clip.sizes import Sizes
from models.clip.towers import CLIP, full_precision, half_arithmetic, keep_in_half
from models.parts.interaction import Tokens, without
from models.parts.temporal import Mean, Recurrent, Sequence, Tight, copy_text_tower

EPS = 1e-12  # of the layer norms outside CLIP


class FrameReading(Backbone, Protocol):
    """What the options of a system say about its extractor."""

    words: int
    frames: int
    aggregation: str
    temporal_layers: int
    half_weights: bool
    padding: str


@dataclass(frozen=True)
class Match:
    """Why a text and a video of L words and T frames score as they do.

    similarity (L, T): cosines. best_frame (L,) and best_word (T,): their maxima as they count.
    word_weight (L,) and frame_weight (T,) sum to 1. The score is (t2v + v2t) / 2.
    """

    similarity: Tensor
    best_frame: Tensor
    best_word: Tensor
    word_weight: Tensor
    frame_weight: Tensor

    @property
    def t2v(self) -> float:
        """The mean of `best_frame`, weighted by `word_weight`."""
        return float(self.word_weight @ self.best_frame)

    @property
    def v2t(self) -> float:
        """The mean of `best_word`, weighted by `frame_weight`."""
        return float(self.frame_weight @ self.best_word)


class WordsFrames(RetrievalModel):
    """The extractor: token ids (B, L) and frames (B, T, S, S, 3) -> features of words and frames.

    The features are not normalised. A system adds `word_weight` and `frame_weight`, (..., D) ->
    (..., 1), its own parts, its scores and its losses.
    """

    def __init__(self, options: FrameReading, clip: CLIP):
        super().__init__()
        self.options = options
        self.clip = clip
        self.inputs = inputs_of(options, clip.sizes, padding="zero")
        self.temporal = _build_temporal(options, clip)

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B texts; those of any batch can be put together.

        batch: text (B, L) int64, L at most `words`; text_mask (B, L) bool.
        """
        return self.text_encoding(self.read_text(batch))

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B videos of T frames.

        batch: frames (B, T, S, S, 3) uint8 or normalised floats (B, T, 3, S, S); video_mask (B, T)
        bool.
        """
        return self.video_encoding(self.read_video(batch))

    def text_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of texts that were read: features (B, words, D), real (B, words).

        Each system has its own. Raises TypeError if the model has none.
        """
        raise TypeError(f"{type(self).__name__} has no text encoder")

    def video_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of videos that were read: features (B, T, D), real (B, T).

        Each system has its own. Raises TypeError if the model has none.
        """
        raise TypeError(f"{type(self).__name__} has no video encoder")

    def start_from_clip(self) -> None:
        """Give new parts the published first values.

        New transformers start from the text positions and the first text blocks of CLIP.
        """
        for part in self.new_parts():
            _initialise(part)
            if isinstance(part, Recurrent):
                part.positions.weight.copy_(self.clip.positional_embedding.detach())
            if isinstance(part, (Sequence, Tight)):
                copy_text_tower(self.clip, part.positions, part.transformer)

    def new_parts(self) -> list[nn.Module]:
        """Return everything besides CLIP."""
        return [part for name, part in self.named_children() if name != "clip"]

    @property
    def scale(self) -> float:
        """What a similarity is multiplied by to become a logit."""
        return self.clip.logit_scale.exp().item()

    @property
    def padding_wins(self) -> bool:
        """Whether padded words and frames count as similarity 0, as published."""
        return self.options.padding == "zero"

    @property
    def padding_counts(self) -> bool:
        """Whether anything reads the features of padded frames."""
        return False

    def word_features(self, batch: Batch, ends_only: bool = False) -> Tensor:
        """Text (B, L) -> words (B, L', D), or end tokens (B, D); float32, not normalised.

        L' is the length of the longest text and one more: the first padding word may win a
        maximum, no other can. Raises Mismatch for texts that are empty or too long.
        """
        ids = batch["text"]
        real = batch["text_mask"]
        longest = _check_lengths(real, "text", self.options.words)
        length = min(ids.shape[1], longest + 1)
        with self._precision_of_towers(ids):
            read = self.clip.read(ids[:, :length])  # (B, L', W)
            if ends_only:
                rows = torch.arange(len(ids), device=ids.device)
                read = read[rows, real.sum(1) - 1]  # (B, W)
            return self.clip.project_text(read).float()

    def read_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what is gathered of texts: features (B, words, D), not normalised, and `real`."""
        return {
            "features": self.to_words(self.word_features(batch)),
            "real": self.to_words(batch["text_mask"]),
        }

    def read_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what is gathered of videos: features (B, T, D), not normalised, and `real`.

        They come from behind the temporal module. Raises Mismatch for videos that are empty or
        too long.
        """
        frames = batch["frames"]
        real = batch["video_mask"]
        _check_lengths(real, "video", self.options.frames)
        features = self._frame_features(frames, real)  # (B, T, D)
        return {"features": self.temporal(features, real), "real": real}

    def weights(self, features: Tensor, real: Tensor, network: str) -> Tensor:
        """Features (B, L, D) and real (B, L) -> the learnt weight of each, (B, L).

        Those of a text or video sum to 1; padding has 0. network: the name of the part that
        weighs.
        """
        with full_precision(features):
            logits = getattr(self, network)(features).squeeze(-1)  # (B, L)
            return logits.masked_fill(~real, float("-inf")).softmax(-1)

    def explain(self, text: Encoding, video: Encoding) -> Match:
        """Compare the first text and the first video of two encodings: L words by T frames.

        The encodings hold words (n, L, D) and frames (m, T, D).
        """
        words = tokens(text)
        frames = tokens(video)
        is_word = words.real[0]
        is_frame = frames.real[0]
        # as published, padding is 0 and may win a maximum
        u = words.vectors[0] * is_word[:, None]  # (L, D)
        w = frames.vectors[0] * is_frame[:, None]  # (T, D)
        each = u @ w.T  # (L, T)
        counts = self.padding_wins
        return Match(
            similarity=each[is_word][:, is_frame],
            best_frame=without(each, is_frame, counts).amax(1)[is_word],
            best_word=without(each, is_word[:, None], counts).amax(0)[is_frame],
            word_weight=words.weight[0][is_word],
            frame_weight=frames.weight[0][is_frame],
        )

    def halve(self) -> None:
        """Keep CLIP's matrices in float16 if the options say so."""
        if self.options.half_weights:
            keep_in_half(self.clip)

    def to_words(self, x: Tensor) -> Tensor:
        """Put zeros behind texts (B, L, ...), so that all have one length: (B, words, ...)."""
        missing = self.options.words - x.shape[1]
        unpadded = (0, 0) * (x.ndim - 2)
        return F.pad(x, (*unpadded, 0, missing))

    def _frame_features(self, frames: Tensor, real: Tensor) -> Tensor:
        """Frames (B, T, S, S, 3) and real (B, T) -> (B, T, D) float32.

        Padded frames share the encoding of an empty picture where it counts, else they are 0.
        """
        visual = self.clip.visual
        with self._precision_of_towers(real):
            if bool(real.all()):
                return visual(frames.flatten(0, 1)).float().unflatten(0, real.shape)
            pixels = visual.pixels(frames[real])  # (R, 3, S, S)
            if self.padding_counts:
                pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
            rows = visual(pixels).float()  # (R or R + 1, D)
        if not self.padding_counts:
            rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])  # (R + 1, D)
        n_real = len(rows) - 1
        row_of = torch.full(real.shape, n_real, device=real.device)  # (B, T)
        row_of[real] = torch.arange(n_real, device=real.device)
        return rows[row_of]

    def _precision_of_towers(self, like: Tensor) -> AbstractContextManager:
        """float16 arithmetic if the weights are float16; otherwise as the trainer says."""
        return half_arithmetic(self.options.half_weights, like)


def tokens(encoding: Encoding) -> Tokens:
    """Return an encoding as token-wise comparison reads it: vectors (n, L, D) of length 1.

    Encodings that hold features (n, L, D) get their directions here.
    """
    vectors = encoding.get("tokens")
    if vectors is None:
        vectors = F.normalize(encoding["features"], dim=-1)
    return Tokens(vectors, encoding["real"].bool(), encoding["weight"])


def weighted_mean(encoding: Encoding) -> Tensor:
    """Return the directions of words or frames, averaged by their learnt weights: (n, D), not
    normalised.

    Weights and directions are those of the token-wise score, so the product of two means is that
    score with means in the place of both maxima.
    """
    vectors, real, weight = tokens(encoding)
    share = weight.float() * real  # (n, L)
    return (vectors.float() * share[..., None]).sum(1)


def check_sizes(options: FrameReading, sizes: Sizes, positions: int) -> None:
    """Raise Mismatch for a CLIP that the published systems cannot use.

    positions: how many positions in time are needed, 0 for none.
    """
    if sizes.embed != sizes.text_width:
        raise Mismatch(
            f"words of width {sizes.text_width} in a space of {sizes.embed}: the new transformers"
            " start from the text tower and need them equal",
            "Give one of OpenAI's ViT-B/32, ViT-B/16, ViT-L/14.",
        )
    if max(options.words, positions) > sizes.context:
        raise Mismatch(
            f"{options.words} words and {options.frames} frames, the backbone has {sizes.context}"
            " positions",
            "Lower words or frames.",
        )


def weigher(layers: int, width: int, hidden: int) -> nn.Module:
    """Return a network (..., D) -> (..., 1): one to three linear layers with ReLU between them."""
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, 1))


def _check_lengths(real: Tensor, side: str, limit: int) -> int:
    """Return the most real entries of a row of `real` (B, L).

    Raises Mismatch for a row without any, or for more than the options allow.
    """
    counts = real.sum(1)
    fewest, most = torch.stack([counts.amin(), counts.amax()]).tolist()
    unit = "word" if side == "text" else "frame"
    if fewest == 0:
        row = int(counts.argmin())
        raise Mismatch(
            f"{side} {row} of the batch is all padding", f"Leave out items without a real {unit}."
        )
    read = max(most, real.shape[1]) if side == "text" else most
    if read > limit:
        raise Mismatch(
            f"{side}s of {max(most, real.shape[1])} {unit}s, the model reads {limit}",
            f"Cut them to {limit}, or raise the option {unit}s.",
        )
    return most


def _build_temporal(options: FrameReading, clip: CLIP) -> nn.Module:
    sizes = clip.sizes
    if options.aggregation == "none":
        return Mean()
    if options.aggregation == "seqLSTM":
        return Recurrent(sizes.embed, clip.positional_embedding)
    return Sequence(sizes.embed, options.temporal_layers, sizes.context, EPS)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Give linear layers, embeddings and attention the published first values.

    Weights come from normal(0, 0.02), biases are 0; attention's stacked matrix is as torch's.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, Attention):
            nn.init.xavier_uniform_(part.in_proj_weight)
