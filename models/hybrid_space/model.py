"""Dual Encoding, before Dual Encoding++: the hybrid space (TPAMI 2021), the latent one (CVPR 2019).

Paper: Dual Encoding for Video Retrieval by Text (Dong et al., TPAMI 2021), sections 3.1 to 3.4.
Published code: danieljf24/hybrid_space: model.py, loss.py. Parts that Dual Encoding++ kept are in
dual_encoding.py and sequence.py.

Differences from Dual Encoding++ (docs/specs/dual-encoding.md, section 11.1): dropout on
pooled levels; heads normalise before dropout, the concept head has none; "full" convolutions; GRU
means over the true length; at most 64 frames for levels 2 and 3; <start> and <end> around a
caption; special and unknown words are not in the bag; summed losses.

Where we differ, and why:
- `pooling: padded` is published: the video GRU runs over padding, so its reverse direction starts
  there, and windows of padding take part in the maxima. `masked` (default) makes an encoding
    independent of what shares its batch.
- Levels lie as (level 1, GRU, filters); the published order is (GRU, filters, level 1). Import and
  export turn them.
- L2 normalisation has an epsilon, and the order similarity a gradient where a text lies inside a
  video.
- Four options do what they say; the published program does otherwise, and does so here where the
  option is set to its published value: `loss.tag_cost` (cost mean leaves the tag terms multiplied
  by the batch size), `normalise` (the flags change nothing), `distance` (squares in training, plain
  distances in evaluation) and `concept_training` (raw products where concepts are ranked by
  cosines).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import base
from models.base import Batch, Encoding, Fusion, Ranking, RetrievalModel, Shared
from models.dual_encoding.bag_of_words import PAD, Bag, bag_linear
from models.dual_encoding.model import (
    embedding,
    encoder,
    mean_over_time,
    mix,
    side_by_side,
    space_losses,
    spans,
)
from models.dual_encoding.sequence import SequenceEncoder, Steps
from models.hybrid_space.options import Options
from models.parts.interaction import cosine, dot, euclidean, euclidean_plain, jaccard, order
from models.parts.losses import tag_loss
from models.parts.matmul import linear

START, END, UNKNOWN, SPECIAL = 1, 2, 3, 4  # <pad>, <start>, <end>, <unk> open the vocabulary
_MEASURES = {"cosine": cosine, "order": order, "euclidean": euclidean, "jaccard": jaccard}


def build(options: Options, assets: base.Assets) -> "HybridSpace":
    """Return the model, initialised as published or from `assets.init`.

    Needs n_words and feature_dim, n_tags for the hybrid space, and bag_columns where bags have
    their own vocabulary. Raises Mismatch if something is missing or unfit.
    """
    return base.load_init(HybridSpace(options, assets), assets)


class HybridSpace(RetrievalModel):
    """Words (B, L) and features (B, T, F) -> latent (B, D), in the hybrid space concept (B, K)."""

    targets = ("tags", "video_index")

    def __init__(self, options: Options, assets: base.Assets):
        super().__init__()
        _check(options, assets)
        self.options = options
        self.inputs = base.Inputs(text="words", video="features", tags=options.space == "hybrid")
        self.video = encoder(assets.feature_dim, options.video, "full")
        self.words = embedding(options.text.word_dim, assets)
        self.text = encoder(self.words.embedding_dim, options.text, "full")
        self.bag_words, columns = _bag(options, assets)
        self.register_buffer("bag_columns", columns, persistent=False)
        self.dropout = nn.Dropout(options.dropout)
        full = options.levels == "full"
        widths = {
            "video": self.video.width + full * assets.feature_dim,
            "text": self.text.width + full * self.bag_words,
        }
        self.latent = nn.ModuleDict(
            {side: _latent_head(width, options) for side, width in widths.items()}
        )
        if options.space == "hybrid":
            self.concept = nn.ModuleDict(
                {side: Head(width, assets.n_tags) for side, width in widths.items()}
            )

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B texts.

        batch: text (B, L) int64, words without boundaries; text_mask (B, L) bool; maybe bow (B,
        bag_words). Ids from n_words on are words that only the bag knows (`Assets.bag_columns`).
        """
        bag, rest = self.text_levels(batch["text"], batch["text_mask"], batch.get("bow"))
        return self._project("text", rest, bag)

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B videos. batch: features (B, T, F), video_mask (B, T) bool."""
        return self._project("video", self.video_levels(batch["features"], batch["video_mask"]))

    def text_levels(
        self, text: Tensor, mask: Tensor, bow: Tensor | None = None
    ) -> tuple[Bag | None, Tensor]:
        """Return level 1 as a bag (None if left out), and levels 2 and 3 side by side (B, width).

        text (B, L) int64, mask (B, L) bool, bow (B, bag_words). Raises Mismatch if the bag has a
        vocabulary of its own that was not given.
        """
        bag = None
        if self.options.levels == "full":
            bag = self._bag(text.masked_fill(~mask, PAD), bow)
        known = torch.where(text < self.words.num_embeddings, text, UNKNOWN)
        ids, mask = with_boundaries(known, mask)  # (B, L + 2)
        steps = self._steps(mask, self.text)
        words = self.words(ids.flatten()[steps.source])  # (N, word_dim)
        hidden = self.text.hidden(words, steps)  # (N, width_gru)
        return bag, self._levels(self.text, hidden, steps)

    def video_levels(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return levels 1 (unless left out), 2 and 3 of videos side by side, (B, width).

        features (B, T, F), mask (B, T) bool.
        """
        first = [mean_over_time(features, mask)] if self.options.levels == "full" else []
        limit = self.options.video.max_frames
        features = features[:, :limit]
        mask = mask[:, :limit]
        steps = self._steps(mask, self.video)
        if self.options.pooling == "masked":
            hidden = self.video.hidden(features.flatten(0, 1)[steps.source], steps)
        else:  # published: not packed
            outputs, _ = self.video.gru(features.transpose(0, 1))  # (T, B, width_gru)
            hidden = outputs.transpose(0, 1).flatten(0, 1)[steps.source]
        return torch.cat([*first, self._levels(self.video, hidden, steps)], 1)

    def _steps(self, mask: Tensor, side: SequenceEncoder) -> Steps:
        return Steps.of(mask, side.kernels, self.options.pooling == "masked")

    def _levels(self, side: SequenceEncoder, hidden: Tensor, steps: Steps) -> Tensor:
        levels = side.levels(hidden, steps, self.options.gru_pool)
        return torch.cat([self.dropout(level) for level in levels], 1)

    def _bag(self, text: Tensor, bow: Tensor | None) -> Bag:
        if bow is not None:
            return Bag(torch.arange(self.bag_words, device=bow.device), bow.float(), self.bag_words)
        if self.bag_columns is None:
            raise base.Mismatch(
                f"bags of {self.bag_words} words, a vocabulary of {self.words.num_embeddings}",
                "Give the vocabulary of the bags.",
            )
        bag = Bag.of(self.bag_columns[text] + 1, self.bag_words, skip=1)  # 0: not in the bag
        return replace(bag, columns=bag.columns - 1)

    def _project(self, side: str, levels: Tensor, bag: Bag | None = None) -> Encoding:
        latent = self.latent[side](levels, bag)
        flag = {"text": self.options.text_norm, "video": self.options.video_norm}[side]
        normalised = flag or self.options.normalise == "always"
        encoding = {"latent": F.normalize(latent, dim=1) if normalised else latent}
        if self.options.space == "hybrid":
            logits = self.concept[side](levels, bag)
            encoding["concept"] = torch.sigmoid(logits)
            if self.training:
                encoding["concept_logit"] = logits
        return encoding

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return similarities (n_t, n_v) of the latent space and, if there is one, of concepts."""
        measure = _MEASURES[self.options.measure]
        if self.options.measure == "euclidean" and self.options.distance == "plain":
            measure = euclidean_plain
        scores = {"latent": measure(text["latent"], video["latent"])}
        if self.options.space == "hybrid":
            measure = _MEASURES[self.options.concept_measure]
            scores["concept"] = measure(text["concept"], video["concept"])
        return scores

    def training_scores(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return what the triplets compare, (B, B) of each space.

        It is `score` but for what only evaluation does: distances are squared, and concepts may be
        compared by raw products.
        """
        scores = {"latent": _MEASURES[self.options.measure](text["latent"], video["latent"])}
        if self.options.space == "hybrid":
            raw = self.options.concept_training == "dot"
            is_dot = raw and self.options.concept_measure == "cosine"
            measure = dot if is_dot else _MEASURES[self.options.concept_measure]
            scores["concept"] = measure(text["concept"], video["concept"])
        return scores

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes of `score` per pair (n_t, n_v); measure order holds (n_t, n_v, D)."""
        width = 5 + (text["latent"].shape[1] if self.options.measure == "order" else 0)
        return width * text["latent"].element_size()

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """Return both scores (N_t, N_v), scaled to [0, 1] over the whole matrix, mixed by alpha.

        In the latent space its score is the final one.
        """
        if self.options.space == "latent":
            return super().fuse(scores, text, video, how)
        alpha = self.options.alpha
        fused = mix(scores["latent"], scores["concept"], alpha, "minmax", how.statistics)
        return Ranking(fused, fused.T)

    def statistics(self, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """Minimum and range of both scores; nothing in the latent space, which has one."""
        return spans(scores, "minmax") if self.options.space == "hybrid" else {}

    @property
    def summaries(self) -> str:
        if self.options.measure != "cosine":  # a product does not stand for these
            return "none"
        return "candidates" if self.options.space == "hybrid" else "score"

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return the latent vector (n, D) of length 1; in the hybrid space concepts, too."""
        if self.options.space == "hybrid":
            return side_by_side(encoding, self.options.alpha, query)
        return F.normalize(encoding["latent"], dim=1)

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return triplets () of each space and, in the hybrid space, tag cross-entropy () per side.

        batch: as of DualEncoding.
        """
        o = self.options.loss
        terms = space_losses(self.training_scores(text, video), batch, o)
        if self.options.space == "hybrid":
            for side, encoding in (("text", text), ("video", video)):
                logits = encoding["concept_logit"]
                terms[f"tags_{side}"] = tag_loss(logits, batch["tags"], o.tag_cost or o.cost)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}


class Head(nn.Module):
    """Linear, batch norm, dropout, in this order: (B, width) -> (B, out).

    The columns of a bag stand before those of the other levels.
    """

    def __init__(self, width: int, out: int, dropout: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.norm = nn.BatchNorm1d(out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, levels: Tensor, bag: Bag | None = None) -> Tensor:
        """Return the projection (B, out) of levels (B, width), or of a bag and levels behind it."""
        if bag is None:
            out = linear(levels, self.linear.weight, self.linear.bias)
        else:
            out = bag_linear(bag, levels, self.linear.weight, self.linear.bias)
        return self.dropout(self.norm(out))


def _latent_head(width: int, options: Options) -> Head:
    head = Head(width, options.latent_dim, options.dropout)
    nn.init.xavier_uniform_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return head


def with_boundaries(text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """<start> before and <end> behind each text: (B, L) -> (B, L + 2), and the mask."""
    lengths = mask.sum(1, keepdim=True)
    longer = F.pad(text.masked_fill(~mask, PAD), (1, 1), value=PAD)
    longer[:, 0] = START
    longer.scatter_(1, lengths + 1, END)
    return longer, torch.arange(longer.shape[1], device=text.device) < lengths + 2


def _bag(options: Options, assets: base.Assets) -> tuple[int, Tensor | None]:
    """Words of a bag, and the column of each word id in it, int64, -1: in none.

    Without a vocabulary of its own a bag counts all words but the special ones. No columns: it has
    one, not given here.
    """
    stated = options.text.bag_words
    default = assets.n_words - SPECIAL
    if assets.bag_columns is None:
        if stated not in (None, default):
            return stated, None
        return default, (torch.arange(assets.n_words) - SPECIAL).clamp(min=-1)
    n_words = int(np.max(assets.bag_columns)) + 1
    if stated not in (None, n_words):
        raise base.Mismatch(
            f"a bag vocabulary of {n_words:,} words, where {stated:,} are expected",
            "Give that one.",
        )
    return n_words, torch.tensor(assets.bag_columns)


def _check(options: Options, assets: base.Assets) -> None:
    sizes = {"vocabulary": assets.n_words - SPECIAL, "frame features": assets.feature_dim}
    sizes |= {"tag vocabulary": assets.n_tags} if options.space == "hybrid" else {}
    if missing := [name for name, size in sizes.items() if size < 1]:
        raise base.Mismatch(
            f"Dual Encoding needs {', '.join(missing)}", "Add the steps that make them."
        )
