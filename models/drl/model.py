"""DRL: words and frames compared one by one and weighted by what they say; channels decorrelated in
training.

Paper: Wang et al. 2022, Disentangled Representation Learning for Text-Video Retrieval, sections 3.1
(encoders), 3.2 (interaction), 3.3 (channel decorrelation), 3.4 (loss). Published code:
foolwood/DRL: tvr/models/modeling.py; alro923/DRL is the same model. Source:
docs/specs/drl.md, sections 3 to 8. Side by side with the published file:

    here                          there
    words_frames.py               get_text_feat, get_video_feat, agg_video_feat; what the systems
                                  share
    temporal.py                   Transformer, CrossModel of module_cross.py
    token_wise (interaction.py)   get_similarity_logits: ti_interaction, wti_interaction
    losses.py, _correlation       CDCR inside them
    forward, gather               AllGather (dp, ti, wti), AllGather2 (xti)

Where we differ, and why:
- Padding is not encoded. As published a padded frame or word counts as similarity 0 and may win a
  maximum, and with cdcr 2 and 3 its vector then enters the loss: so in training all padded frames
    share one encoding of an empty picture,
  and one padding word is read behind the longest text. The same values as encoding all of it.
- `gather_rule` local_gradient is published for dp, ti and wti: the encoders get 1/N of the gradient
  on N processes; full_gradient (default) makes N processes one. xti always has the full gradient,
    as published.
- The published interaction `mlp` cannot run and is not offered; cdcr 3 with ti crashes there and is
  refused here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Assets, Batch, Encoding, Mismatch, Shared, gather, load_init, own_rows
from models.clip.build import build_clip
from models.clip.towers import CLIP
from models.drl.options import Options
from models.parts.interaction import token_wise
from models.parts.losses import contrastive, correlation, decorrelation
from models.parts.temporal import Tight, mean_direction
from models.parts.words_frames import (
    EPS,
    Match,
    WordsFrames,
    check_sizes,
    full_precision,
    halve,
    tokens,
    weigher,
)

_CROSS_HEADS = 8  # whatever the width (published)
_DRAWS = 10_000  # cdcr 1: a draw below this, modulo the number of words, names one (published)


def build(options: Options, assets: Assets) -> "Drl":
    """The model with the weights of `assets.init`; else a new one around `assets.clip`, or around
    an untrained CLIP.

    Raises Mismatch if the weights are of another backbone than the options name, or do not fit.
    """
    model = Drl(options, build_clip(options, assets))
    if assets.init is None:
        model.start_from_clip()
    load_init(model, assets)
    halve(model)
    return model


class Drl(WordsFrames):
    """Token ids (B, L) and frames (B, T, S, S, 3) -> one vector each (dp), or words and frames with
    weights.

    Encodings: dp {"vector" (B, D) of length 1}; xti {"vector"} and {"frames" (B, T, D), "real"}; ti
    and wti {"tokens" (B, L or T, D) of length 1, "weight", "real"}. L is always `words`, so that
    texts of any batch can be put together.
    """

    targets = ()

    def __init__(self, options: Options, clip: CLIP):
        sizes, is_xti = clip.sizes, options.interaction == "xti"
        is_placed = is_xti or options.aggregation == "seqTransf"
        check_sizes(options, sizes, (is_xti + options.frames) * is_placed)
        super().__init__(options, clip)
        if options.interaction == "wti":
            width, layers = sizes.embed, options.wti_arch
            self.word_weight, self.frame_weight = (weigher(layers, width, width) for _ in range(2))
        if is_xti:
            self.cross = Tight(
                sizes.embed, options.cross_layers, sizes.context, eps=EPS, heads=_CROSS_HEADS
            )

    @property
    def padding_counts(self) -> bool:
        return self.training and self.options.cdcr >= 2

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64, L at most `words`; text_mask (B, L) bool."""
        return self.text_encoding(self.read_text(batch))

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or normalised floats (B, T, 3, S, S); video_mask (B,
        T) bool.
        """
        return self.video_encoding(self.read_video(batch))

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Similarities (n_t, n_v), without temperature; cosines, except for xti."""
        with full_precision(_any(text)):
            if self.options.interaction == "dp":
                return {"similarity": text["vector"] @ video["vector"].T}
            if self.options.interaction == "xti":
                return {
                    "similarity": self.cross(text["vector"], video["frames"], video["real"].bool())
                }
            return {"similarity": token_wise(tokens(text), tokens(video))}

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """token_wise bounds its own memory; xti holds a sequence for each pair, about 16 times over
        within a block.
        """
        if self.options.interaction != "xti":
            return 8
        _, frames, width = video["frames"].shape
        return 16 * 4 * (1 + frames) * width

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """As the base class, but what is gathered are features: weights and scores come after it,
        as published (8).
        """
        text, video = self.read_text(batch), self.read_video(batch)
        if self.options.interaction != "xti":
            text, video = gather(text, self.gather_rule), gather(video, self.gather_rule)
        return self.loss(self.text_encoding(text), self.video_encoding(video), {})

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Symmetric InfoNCE of all pairs at the present temperature, plus lambda x CDCR (6, 7)."""
        with full_precision(_any(text)):
            t2v, v2t, first, share = self.logits(text, video)
            terms = {"t2v": share * contrastive(t2v, first), "v2t": share * contrastive(v2t, first)}
            loss = (terms["t2v"] + terms["v2t"]) / 2
            if self.options.cdcr and self.options.interaction != "xti":
                terms["cdcr"] = self._decorrelation(text, video)
                loss = loss + self.options.cdcr_lambda * terms["cdcr"]
            return terms | {"loss": loss}

    def logits(self, text: Encoding, video: Encoding) -> tuple[Tensor, Tensor, int, float]:
        """Return the logits t2v (n, N_v) and v2t (m, N_t), the column of row 0, and the share of
        this process in the loss.

        Rows are queries. Usually all pairs are scored, and v2t is the transpose of t2v. On several
        processes xti scores own texts with all videos and own videos with all texts, so that each
        process works on its share of the pairs; the share in the loss is 1 if all processes have
        the same number of rows.
        """
        scale = self.clip.logit_scale.exp()
        n = len(next(iter(text.values())))
        first, processes = (
            own_rows(n, scale.device) if self.options.interaction == "xti" else (0, 1)
        )
        if processes == 1:
            t2v = scale * self.score(text, video)["similarity"]
            return t2v, t2v.T, 0, 1.0
        t2v = scale * self.score(text, gather(video, "full_gradient"))["similarity"]  # (n, N)
        v2t = scale * self.score(gather(text, "full_gradient"), video)["similarity"].T
        return t2v, v2t, first, n * processes / t2v.shape[1]

    def explain(self, text: Encoding, video: Encoding) -> Match:
        """The first text and video of two encodings, word by frame. Raises Mismatch for models that
        see no words.
        """
        if self.options.interaction not in ("ti", "wti"):
            raise Mismatch(
                f"interaction {self.options.interaction} compares whole texts and videos, there is"
                " nothing to show",
                "Explain a model with interaction ti or wti.",
            )
        return super().explain(text, video)

    def read_text(self, batch: Batch) -> Encoding:
        """What is gathered of texts: vector (B, D), or features (B, words, D) with `real`; not
        normalised.
        """
        if self.options.interaction in ("dp", "xti"):
            return {"vector": self.word_features(batch, ends_only=True)}
        return super().read_text(batch) | self._draw(batch, "text")

    def read_video(self, batch: Batch) -> Encoding:
        """What is gathered of videos: features (B, T, D) behind the temporal module, not
        normalised, and `real`.
        """
        return super().read_video(batch) | self._draw(batch, "video")

    def text_encoding(self, read: Encoding) -> Encoding:
        if self.options.interaction == "xti":
            return read
        if self.options.interaction == "dp":
            return {"vector": F.normalize(read["vector"], dim=-1)}
        return self._weighed(read, "word_weight")

    def video_encoding(self, read: Encoding) -> Encoding:
        if self.options.interaction == "xti":
            return {"frames": read["features"], "real": read["real"]}
        if self.options.interaction == "dp":
            return {"vector": mean_direction(read["features"], read["real"])}
        return self._weighed(read, "frame_weight")

    def _weighed(self, read: Encoding, network: str) -> Encoding:
        """Directions of words or frames, and the weight of each: learnt (wti) or equal (ti)."""
        features, real = read["features"], read["real"]
        if self.options.interaction == "wti":
            weight = self.weights(features, real, network)
        else:
            weight = real / real.sum(1, keepdim=True)
        with full_precision(features):
            found = {"tokens": F.normalize(features, dim=-1), "weight": weight, "real": real}
        return found | {name: value for name, value in read.items() if name == "draw"}

    def _draw(self, batch: Batch, side: str) -> Encoding:
        """The numbers of cdcr 1; drawn with the features, so that all processes see the same ones.

        A batch may bring them: text_draw, video_draw, (B,) int64.
        """
        if not self.training or self.options.cdcr != 1 or self.options.interaction == "dp":
            return {}
        real = batch[f"{side}_mask"]
        given = batch.get(f"{side}_draw")
        drawn = torch.randint(_DRAWS, (len(real),), device=real.device) if given is None else given
        return {"draw": drawn}

    def _decorrelation(self, text: Encoding, video: Encoding) -> Tensor:
        o = self.options
        matrix = (
            _correlation(text, video, o.cdcr)
            if "tokens" in text
            else correlation(text["vector"], video["vector"])
        )
        return decorrelation(matrix, o.cdcr_alpha1, o.cdcr_alpha2)


def _correlation(text: Encoding, video: Encoding, cdcr: int) -> Tensor:
    """The correlation of channels (D, D) over matched words and frames of the pairs (6)."""
    (u, u_real, alpha), (w, w_real, beta) = tokens(text), tokens(video)
    rows = torch.arange(len(u), device=u.device)
    if cdcr == 1:
        return correlation(
            u[rows, text["draw"] % u_real.sum(1)], w[rows, video["draw"] % w_real.sum(1)]
        )
    with torch.no_grad():
        each = (u * u_real[..., None]) @ (w * w_real[..., None]).transpose(1, 2)  # (B, L, T)
        best_frame, best_word = each.argmax(2), each.argmax(1)  # the first of equal ones
    frames, words = w[rows[:, None], best_frame][u_real], u[rows[:, None], best_word][w_real]
    if cdcr == 2:
        return (correlation(u[u_real], frames) + correlation(w[w_real], words)) / 2
    of_words = correlation(u[u_real], frames, alpha[u_real], len(u))
    return (of_words + correlation(w[w_real], words, beta[w_real], len(w))) / 2


def _any(encoding: Encoding) -> Tensor:
    return next(iter(encoding.values()))
