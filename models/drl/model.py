"""DRL: words and frames are compared one by one and weighted; training decorrelates channels.

Paper: Wang et al. 2022, Disentangled Representation Learning for Text-Video Retrieval, sections 3.1
(encoders), 3.2 (interaction), 3.3 (channel decorrelation), 3.4 (loss). Published code:
foolwood/DRL: tvr/models/modeling.py; alro923/DRL is the same model. Source:
docs/specs/drl.md, sections 3 to 8. Side by side with the published file:

    here                          there
    words_frames.py               get_text_feat, get_video_feat, agg_video_feat; what the systems
                                  share
    temporal.py                   Transformer, CrossModel of module_cross.py
    token_wise (interaction.py)   get_similarity_logits: ti_interaction, wti_interaction
    losses.py, _correlate         CDCR inside them
    losses, gather                AllGather (dp, ti, wti), AllGather2 (xti)

Where we differ, and why:
- Padding is not encoded. As published a padded frame or word counts as similarity 0 and may win a
  maximum, and with cdcr 2 and 3 its vector then enters the loss: so in training all padded frames
  share one encoding of an empty picture, and one padding word is read behind the longest text.
  The values are those of encoding all of it.
- `gather_rule` local_gradient is published for dp, ti and wti: the encoders get 1/N of the gradient
  on N processes; full_gradient (default) makes N processes one. xti always has the full gradient,
  as published.
- The published interaction `mlp` cannot run and is not offered; cdcr 3 with ti crashes there and is
  refused here.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Assets, Batch, Encoding, Mismatch, Shared, gather, load_init, own_rows
from models.clip.build import build_clip
from models.clip.towers import CLIP, full_precision
from models.drl.options import Options
from models.parts.interaction import token_wise, without
from models.parts.losses import contrastive, correlation, decorrelation
from models.parts.temporal import Tight, mean_direction
from models.parts.words_frames import (
    EPS,
    Match,
    WordsFrames,
    check_sizes,
    tokens,
    weigher,
    weighted_mean,
)

_CROSS_HEADS = 8  # whatever the width (published)
_DRAWS = 10_000  # cdcr 1: a draw below this, modulo the number of words, names one (published)


def build(options: Options, assets: Assets) -> "Drl":
    """Return the model with the weights of `assets.init`, or a new one.

    A new one starts from `assets.clip`, or from an untrained CLIP. Raises Mismatch if the weights
    are of another backbone than the options name, or do not fit.
    """
    model = Drl(options, build_clip(options, assets))
    if assets.init is None:
        model.start_from_clip()
    load_init(model, assets)
    model.halve()
    return model


class Drl(WordsFrames):
    """Token ids (B, L) and frames (B, T, S, S, 3) -> vectors, or words and frames with weights.

    Encodings: dp {"vector" (B, D) of length 1}; xti {"vector"} and {"frames" (B, T, D), "real"}; ti
    and wti {"tokens" (B, L or T, D) of length 1, "weight", "real"}. L is always `words`, so that
    texts of any batch can be put together.
    """

    targets = ()

    def __init__(self, options: Options, clip: CLIP):
        sizes = clip.sizes
        is_xti = options.interaction == "xti"
        positions = 0  # in time that a transformer needs
        if is_xti:
            positions = 1 + options.frames  # the sentence stands before the frames
        elif options.aggregation == "seqTransf":
            positions = options.frames
        check_sizes(options, sizes, positions)
        super().__init__(options, clip)
        if options.interaction == "wti":
            width = sizes.embed
            self.word_weight = weigher(options.wti_arch, width, width)
            self.frame_weight = weigher(options.wti_arch, width, width)
        if is_xti:
            self.cross = Tight(
                sizes.embed, options.cross_layers, sizes.context, eps=EPS, heads=_CROSS_HEADS
            )

    @property
    def padding_counts(self) -> bool:
        """Whether anything reads the features of padded frames: the decorrelation of cdcr 2, 3."""
        return self.training and self.options.cdcr >= 2

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return similarities (n_t, n_v), without temperature; cosines, except for xti."""
        with full_precision(_any(text)):
            if self.options.interaction == "dp":
                return {"similarity": text["vector"] @ video["vector"].T}
            if self.options.interaction == "xti":
                real = video["real"].bool()
                return {"similarity": self.cross(text["vector"], video["frames"], real)}
            similarity = token_wise(tokens(text), tokens(video), padding_counts=self.padding_wins)
            return {"similarity": similarity}

    @property
    def summaries(self) -> str:
        return "score" if self.options.interaction == "dp" else "candidates"

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return a vector for each text or video, (n, D).

        dp: its own; ti, wti: words or frames averaged by their weights; xti: means of frames.
        """
        if "tokens" in encoding:
            return weighted_mean(encoding)
        if "frames" in encoding:
            return mean_direction(encoding["frames"], encoding["real"].bool())
        return F.normalize(encoding["vector"], dim=-1)

    def similar(self, video: Encoding, others: Encoding, statistics: Mapping[str, float]) -> Tensor:
        """Return (n, m), as texts and videos are compared; xti, which needs a sentence: cosines."""
        if self.options.interaction != "xti":
            return super().similar(video, others, statistics)
        return self.summary(video) @ self.summary(others).T

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes per pair (n_t, n_v) of `score`.

        token_wise bounds its own memory; xti holds a sequence for each pair, about 16 times over
        within a block.
        """
        if self.options.interaction != "xti":
            return 8
        _, frames, width = video["frames"].shape
        return 16 * 4 * (1 + frames) * width

    def losses(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return the losses () of the B texts and videos that each process has read.

        As published, features are gathered: weights and scores come after it (docs/specs/drl.md,
        section 8).
        """
        if self.options.interaction != "xti":
            text = gather(text, self.gather_rule)
            video = gather(video, self.gather_rule)
        return self.loss(self.text_encoding(text), self.video_encoding(video), {})

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return symmetric InfoNCE () of all pairs at the present temperature, plus lambda x CDCR.

        docs/specs/drl.md, sections 6 and 7.
        """
        with full_precision(_any(text)):
            t2v, v2t, first, share = self.logits(text, video)
            terms = {"t2v": share * contrastive(t2v, first), "v2t": share * contrastive(v2t, first)}
            loss = (terms["t2v"] + terms["v2t"]) / 2
            if self.options.cdcr and self.options.interaction != "xti":
                terms["cdcr"] = self._decorrelation(text, video)
                loss = loss + self.options.cdcr_lambda * terms["cdcr"]
            return terms | {"loss": loss}

    def logits(self, text: Encoding, video: Encoding) -> tuple[Tensor, Tensor, int, float]:
        """Return logits t2v (n, N_v) and v2t (m, N_t), the column of row 0, and a share.

        The share is that of this process in the loss. Rows are queries. Usually all pairs are
        scored, and v2t is the transpose of t2v. On several processes xti scores own texts with all
        videos and own videos with all texts, so that each process works on its share of the pairs;
        the share in the loss is 1 if all processes have the same number of rows.
        """
        scale = self.clip.logit_scale.exp()
        n = len(next(iter(text.values())))
        first, processes = 0, 1
        if self.options.interaction == "xti":
            first, processes = own_rows(n, scale.device)
        if processes == 1:
            t2v = scale * self.score(text, video)["similarity"]
            return t2v, t2v.T, 0, 1.0
        t2v = scale * self.score(text, gather(video, "full_gradient"))["similarity"]  # (n, N)
        v2t = scale * self.score(gather(text, "full_gradient"), video)["similarity"].T
        return t2v, v2t, first, n * processes / t2v.shape[1]

    def explain(self, text: Encoding, video: Encoding) -> Match:
        """Return how the first text and video of two encodings match, word by frame (L, T).

        Raises Mismatch for models that see no words.
        """
        if self.options.interaction not in ("ti", "wti"):
            raise Mismatch(
                f"interaction {self.options.interaction} compares whole texts and videos, there is"
                " nothing to show",
                "Explain a model with interaction ti or wti.",
            )
        return super().explain(text, video)

    def read_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what is gathered of texts, not normalised.

        That is vector (B, D), or features (B, words, D) with `real` (B, words).
        """
        if self.options.interaction in ("dp", "xti"):
            return {"vector": self.word_features(batch, ends_only=True)}
        return super().read_text(batch) | self._draw(batch, "text")

    def read_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what is gathered of videos: features (B, T, D), not normalised, and `real` (B, T).

        The features are those behind the temporal module.
        """
        return super().read_video(batch) | self._draw(batch, "video")

    def text_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of texts that were read: vector (B, D), or features (B, words, D)."""
        if self.options.interaction == "xti":
            return read
        if self.options.interaction == "dp":
            return {"vector": F.normalize(read["vector"], dim=-1)}
        return self._weighed(read, "word_weight")

    def video_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of B videos that were read: features (B, T, D), real (B, T)."""
        if self.options.interaction == "xti":
            return {"frames": read["features"], "real": read["real"]}
        if self.options.interaction == "dp":
            return {"vector": mean_direction(read["features"], read["real"])}
        return self._weighed(read, "frame_weight")

    def _weighed(self, read: Encoding, network: str) -> Encoding:
        """Directions of words or frames, and the weight of each: learnt (wti) or equal (ti)."""
        features = read["features"]
        real = read["real"]
        if self.options.interaction == "wti":
            weight = self.weights(features, real, network)
        else:
            weight = real / real.sum(1, keepdim=True)
        with full_precision(features):
            encoding = {"tokens": F.normalize(features, dim=-1), "weight": weight, "real": real}
        if "draw" in read:
            encoding["draw"] = read["draw"]
        return encoding

    def _draw(self, batch: Batch, side: str) -> Encoding:
        """Return the numbers of cdcr 1, drawn with the features, so that all processes see the
        same.

        A batch may bring them: text_draw, video_draw, (B,) int64.
        """
        if not self.training or self.options.cdcr != 1 or self.options.interaction == "dp":
            return {}
        real = batch[f"{side}_mask"]
        given = batch.get(f"{side}_draw")
        drawn = torch.randint(_DRAWS, (len(real),), device=real.device) if given is None else given
        return {"draw": drawn}

    def _decorrelation(self, text: Encoding, video: Encoding) -> Tensor:
        if "tokens" in text:
            matrix = _correlate(text, video, self.options.cdcr, self.padding_wins)
        else:
            matrix = correlation(text["vector"], video["vector"])
        return decorrelation(matrix, self.options.cdcr_alpha1, self.options.cdcr_alpha2)


def _correlate(text: Encoding, video: Encoding, cdcr: int, padding_counts: bool) -> Tensor:
    """Return the correlation of channels (D, D) over matched words and frames of the B pairs."""
    words, is_word, word_weight = tokens(text)  # (B, L, D), (B, L), (B, L)
    frames, is_frame, frame_weight = tokens(video)  # (B, T, D), (B, T), (B, T)
    n_pairs = len(words)
    rows = torch.arange(n_pairs, device=words.device)
    if cdcr == 1:
        one_word = words[rows, text["draw"] % is_word.sum(1)]  # (B, D)
        one_frame = frames[rows, video["draw"] % is_frame.sum(1)]  # (B, D)
        return correlation(one_word, one_frame)
    with torch.no_grad():
        real_words = words * is_word[..., None]
        real_frames = frames * is_frame[..., None]
        each = real_words @ real_frames.transpose(1, 2)  # (B, L, T)
        # ties go to the lowest index
        best_frame = without(each, is_frame[:, None], padding_counts).argmax(2)  # (B, L)
        best_word = without(each, is_word[..., None], padding_counts).argmax(1)  # (B, T)
    frame_of_word = frames[rows[:, None], best_frame][is_word]  # (N_words, D)
    word_of_frame = words[rows[:, None], best_word][is_frame]  # (N_frames, D)
    words = words[is_word]  # (N_words, D)
    frames = frames[is_frame]  # (N_frames, D)
    if cdcr == 2:
        return (correlation(words, frame_of_word) + correlation(frames, word_of_frame)) / 2
    of_words = correlation(words, frame_of_word, word_weight[is_word], n_pairs)
    of_frames = correlation(frames, word_of_frame, frame_weight[is_frame], n_pairs)
    return (of_words + of_frames) / 2


def _any(encoding: Encoding) -> Tensor:
    return next(iter(encoding.values()))
