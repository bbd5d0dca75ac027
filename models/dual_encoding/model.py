"""Dual Encoding++: two encoders at three levels, a latent and a concept space.

Papers: Dual Encoding for Video Retrieval by Text (Dong et al., TPAMI 2021), sections 3.1 (video),
3.2 (text), 3.3 (hybrid space), 3.4 (losses); Dual Encoding++ (ICCE-Asia 2023). Published code:
dongYoun2/dual-encoding-system: model.py, measure.py; a reader may lay it beside this file:

    here                          there
    video_levels, text_levels     VideoEncoder, TextEncoder; levels 2 and 3 (sequence.py):
                                  RNNEmbedding, CNNEmbedding
    Head                          LinearProjection
    latent, concept               LatentSpace, ConceptSpace
    score, mix                    compute_sim of the two spaces; scale in utils
    loss (losses.py)              compute_loss of the two spaces; TripletMarginLoss

Where we differ, and why:
- `pooling: padded` is published: means over the padded length, maxima that see padding. `masked`
  (default) makes an encoding independent of what shares its batch.
- `scaling: shifted_max` is published, (S - min) / max. It divides by the wrong number and flips the
  order when the maximum is negative; `minmax` (default) divides by the range.
- `concept_double_pass` is published: concept heads run twice per training step. Once is enough
  (default).
- L2 normalisation has an epsilon: a zero vector stays zero instead of becoming NaN.
- Bags of words, Jaccard and the gradient of convolution + maximum are computed without their huge
  tensors (bag_of_words.py, interaction.py, sequence.py): the same values to rounding.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import (
    Assets,
    Batch,
    Encoding,
    Fusion,
    Inputs,
    Mismatch,
    Ranking,
    RetrievalModel,
    Shared,
    load_init,
)
from models.dual_encoding.bag_of_words import PAD, Bag, bag_linear
from models.dual_encoding.options import Levels, LossOptions, Options
from models.dual_encoding.sequence import Padding, Pool, SequenceEncoder, Steps
from models.parts.interaction import cosine, jaccard
from models.parts.losses import tag_loss, triplets
from models.parts.matmul import linear

Scaling = Literal["minmax", "shifted_max"]


def build(options: Options, assets: Assets) -> "DualEncoding":
    """Return the model, with the weights of `assets.init` or new ones.

    New ones are made as published: the same modules in the same order, so that a seed gives the
    same weights. Needs n_words, n_tags and feature_dim. Raises Mismatch if one is missing, or if
    vectors or weights do not fit.
    """
    return load_init(DualEncoding(options, assets), assets)


class DualEncoding(RetrievalModel):
    """Words (B, L) and features (B, T, F) -> latent (B, D) of length 1, concept (B, K) in 0..1."""

    inputs = Inputs(text="words", video="features", tags=True)
    targets = ("tags", "video_index")
    summaries = "candidates"

    def __init__(self, options: Options, assets: Assets):
        super().__init__()
        _check(assets)
        self.options = options
        # the order of creation is the published one, so that a seed gives the published weights
        self.video = encoder(assets.feature_dim, options.video)
        self.words = embedding(options.text.word_dim, assets)
        self.text = encoder(self.words.embedding_dim, options.text)
        widths = {
            "video": assets.feature_dim + self.video.width,
            "text": assets.n_words + self.text.width,
        }
        rates = {"video": options.video.dropouts, "text": options.text.dropouts}
        sides = ("video", "text")
        self.latent = nn.ModuleDict(
            {s: ProjectionHead(widths[s], options.latent_dim, rates[s][0]) for s in sides}
        )
        self.concept = nn.ModuleDict(
            {s: ProjectionHead(widths[s], assets.n_tags, rates[s][1]) for s in sides}
        )

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B texts. batch: text (B, L) int64, text_mask (B, L) bool."""
        bag, rest = self.text_levels(batch["text"], batch["text_mask"])
        return self._project("text", rest, bag)

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B videos. batch: features (B, T, F), video_mask (B, T) bool."""
        return self._project("video", self.video_levels(batch["features"], batch["video_mask"]))

    def text_levels(self, text: Tensor, mask: Tensor) -> tuple[Bag, Tensor]:
        """Return level 1 as a bag over the vocabulary, and levels 2 and 3 side by side (B, width).

        text (B, L) int64 with PAD 0, mask (B, L) bool; width: of the encoder.
        """
        text = text.masked_fill(~mask, PAD)
        steps, pool = self._steps(mask, self.text)
        words = self.words(text.flatten()[steps.source])  # (N, word_dim)
        bag = Bag.of(text, self.words.num_embeddings)
        return bag, torch.cat(self.text(words, steps, pool), 1)

    def video_levels(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return levels 1, 2 and 3 of videos side by side, (B, F + width of the encoder).

        features (B, T, F), mask (B, T) bool.
        """
        steps, pool = self._steps(mask, self.video)
        frames = features.flatten(0, 1)[steps.source]  # (N, F)
        mean = mean_over_time(features, mask)  # (B, F)
        pooled, responses = self.video(frames, steps, pool)  # (B, width_gru), (B, width_conv)
        return torch.cat([mean, pooled, responses], 1)

    def _steps(self, mask: Tensor, encoder: SequenceEncoder) -> tuple[Steps, Pool]:
        masked = self.options.pooling == "masked"
        return Steps.of(mask, encoder.kernels, masked), "mean" if masked else "padded_mean"

    def _project(self, side: str, levels: Tensor, bag: Bag | None = None) -> Encoding:
        logits = self.concept[side](levels, bag)
        encoding = {
            "latent": F.normalize(self.latent[side](levels, bag), dim=1),
            "concept": torch.sigmoid(logits),
        }
        if self.training:
            if self.options.concept_double_pass:
                encoding["concept"] = torch.sigmoid(self.concept[side](levels, bag))
            encoding["concept_logit"] = logits
        return encoding

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return cosines (n_t, n_v) of the latent, Jaccard similarities of the concept space."""
        return {
            "latent": cosine(text["latent"], video["latent"]),
            "concept": jaccard(text["concept"], video["concept"]),
        }

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes of `score` per pair (n_t, n_v).

        They are two results, and three intermediates of the Jaccard similarity.
        """
        return 5 * text["latent"].element_size()

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """Return both scores (N_t, N_v), each scaled over the whole matrix, mixed by alpha.

        Blocks of them cannot be fused one by one.
        """
        o = self.options
        fused = mix(scores["latent"], scores["concept"], o.alpha, o.scaling, how.statistics)
        return Ranking(fused, fused.T)

    def statistics(self, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """Return where both scores begin and how far they reach, by the option `scaling`."""
        return spans(scores, self.options.scaling)

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return both vectors side by side, (n, D + K): cosines of concepts for Jaccard's."""
        return side_by_side(encoding, self.options.alpha, query)

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return triplets () in both spaces and tag cross-entropy () on both sides, and their sum.

        batch: tags (B, K) soft labels in [0, 1]; video_index (B,) int64 for `mask_same_video`.
        """
        o = self.options.loss
        terms = space_losses(self.score(text, video), batch, o)
        for side, encoding in (("text", text), ("video", video)):
            terms[f"tags_{side}"] = tag_loss(encoding["concept_logit"], batch["tags"], o.cost)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}


class ProjectionHead(nn.Module):
    """Linear, dropout, batch norm, in this order: (B, width) -> (B, out).

    The columns of a bag stand before those of the other levels.
    """

    def __init__(self, width: int, out: int, dropout: float):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(out)
        # the bias keeps torch's default, as published: it is not zero
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, levels: Tensor, bag: Bag | None = None) -> Tensor:
        """Return the projection (B, out) of levels (B, width), or of a bag and levels behind it."""
        if bag is None:
            out = linear(levels, self.linear.weight, self.linear.bias)
        else:
            out = bag_linear(bag, levels, self.linear.weight, self.linear.bias)
        return self.norm(self.dropout(out))


def space_losses(scores: Mapping[str, Tensor], batch: Batch, o: LossOptions) -> dict[str, Tensor]:
    """Return the triplet terms () of each space by "<space>_<direction>".

    scores (B, B) by space, with texts as rows; batch: video_index (B,) for `mask_same_video`.
    Raises Mismatch if `mask_same_video` is set and the batch does not say its videos.
    """
    shared = {"max_violation": o.max_violation, "cost": o.cost}
    shared["excluded"] = _same_video(batch) if o.mask_same_video else None
    margins = {
        "latent": o.margin,
        "concept": o.margin if o.concept_margin is None else o.concept_margin,
    }
    return {
        f"{space}_{name}": value
        for space, values in scores.items()
        for name, value in triplets(values, o.direction, margin=margins[space], **shared).items()
    }


def mix(
    latent: Tensor,
    concept: Tensor,
    alpha: float,
    scaling: Scaling,
    statistics: Mapping[str, float] | None = None,
) -> Tensor:
    """Return alpha * scale(latent) + (1 - alpha) * scale(concept), (n, m).

    statistics: the extremes of other, whole matrices, as `spans` finds them; without them those of
    these. Makes one new matrix and no other: at 59,800 captions x 2,990 videos each takes 0.7 GB.
    """
    statistics = statistics or spans({"latent": latent, "concept": concept}, scaling)
    low, span = statistics["latent_low"], statistics["latent_span"]
    concept_low, concept_span = statistics["concept_low"], statistics["concept_span"]
    share = (1 - alpha) / concept_span
    fused = (latent - low).mul_(alpha / span)
    fused.add_(concept, alpha=share)
    return fused.sub_(share * concept_low)


def spans(scores: Mapping[str, Tensor], scaling: Scaling) -> dict[str, float]:
    """Return {<score>_low, <score>_span} of whole matrices: a scaled score is (S - low) / span.

    minmax: the range, so that scores are in [0, 1]. shifted_max: the maximum, as published. Where
    the divisor would be 0, 1 takes its place.
    """
    found = {}
    for name, values in scores.items():
        low = float(values.min())
        high = float(values.max())
        found[f"{name}_low"] = low
        found[f"{name}_span"] = (high - low if scaling == "minmax" else high) or 1.0
    return found


def side_by_side(encoding: Encoding, alpha: float, query: Mapping[str, float] | None) -> Tensor:
    """Return latent and concept vectors of length 1 side by side, (n, D + K).

    query: the statistics by which the vectors of a query are weighted, as `mix` does.
    """
    latent = F.normalize(encoding["latent"], dim=1)
    concept = F.normalize(encoding["concept"], dim=1)
    if query is None:
        return torch.cat([latent, concept], 1)
    shares = alpha / query["latent_span"], (1 - alpha) / query["concept_span"]
    return torch.cat([shares[0] * latent, shares[1] * concept], 1)


def mean_over_time(features: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real frames, level 1: features (B, T, F), mask (B, T) -> (B, F)."""
    share = mask / mask.sum(1, keepdim=True).clamp(min=1)  # (B, T)
    return torch.bmm(share[:, None].to(features), features)[:, 0]


def _same_video(batch: Batch) -> Tensor:
    if "video_index" not in batch:
        raise Mismatch(
            "mask_same_video needs to know the video of each pair",
            "Deliver video_index (B,) in the batch.",
        )
    return batch["video_index"][:, None] == batch["video_index"]


def encoder(dim: int, side: Levels, padding: Padding = "same") -> SequenceEncoder:
    """Levels 2 and 3 of one side."""
    convs = list(zip(side.kernels, side.filters, strict=True))
    return SequenceEncoder(dim, side.rnn, side.bidirectional, convs, padding)


def embedding(word_dim: int, assets: Assets) -> nn.Embedding:
    """Return word vectors (n_words, word_dim): those of the assets, trainable, or uniform in +-0.1.

    Row PAD gets no gradient and is never read. Raises Mismatch if the given vectors are not one for
    each word.
    """
    if assets.word_vectors is None:
        words = nn.Embedding(assets.n_words, word_dim, padding_idx=PAD)
        nn.init.uniform_(words.weight, -0.1, 0.1)
        return words
    vectors = torch.tensor(assets.word_vectors, dtype=torch.float32)
    if vectors.ndim != 2 or len(vectors) != assets.n_words:
        raise Mismatch(
            f"word vectors {tuple(vectors.shape)} for a vocabulary of {assets.n_words} words",
            "Make the word vectors from this vocabulary (stage word2vec).",
        )
    return nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=PAD)


def _check(assets: Assets) -> None:
    sizes = {
        "vocabulary": assets.n_words,
        "tag vocabulary": assets.n_tags,
        "frame features": assets.feature_dim,
    }
    if missing := [name for name, size in sizes.items() if size < 1]:
        raise Mismatch(f"Dual Encoding needs {', '.join(missing)}", "Add the steps that make them.")
