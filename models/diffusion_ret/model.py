"""DiffusionRet: compare every text with every video, then let a denoiser say which of the best
candidates belongs.

Paper: Jin et al. 2023, DiffusionRet: Generative Text-Video Retrieval with Diffusion Model (ICCV
2023), sections 3.2 (discriminative), 3.3 (generative), 3.4 (both losses), 3.5 (inference).
Published code: jpthu17/DiffusionRet: tvr/models/modeling.py, main_retrieval.py.
Source: docs/specs/diffusionret.md, sections 3 to 8.

    here                                   there
    words_frames.py                        get_text_feat, get_video_feat, wti_interaction: shared
                                           with DRL
    denoising.py                           diffusion_model, diffusion_model_v
    diffusion.py                           the noise schedules and one step of the process
    candidates, DiffusionRet.denoising     the generator's losses

Where we differ, and why:
- Of several processes each denoises for its own rows; published, every one computes all of them.
  With `train.seed_scope: same` the gradients are those of one process.
- Candidates are taken from one tensor of every video as every text sees it; published, from frames
  copied per pair, which holds T times as much.
- Rows of the same video are known by `video_index`; published by a hash that differs between
  processes.
- Evaluation draws noise by query, so that ranks do not depend on batches; a gallery smaller than
  the number of candidates is re-ranked as a whole, published it stops.
- Where a batch is all candidates there are (negatives = B - 1), the published order puts rows of
  the same video, and the own one, last and takes them as negatives: so do we.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import (
    Assets,
    Batch,
    Encoding,
    Fusion,
    Mismatch,
    Ranking,
    Shared,
    gather,
    load_init,
    own_rows,
)
from models.clip.build import build_clip
from models.clip.towers import CLIP
from models.diffusion_ret.denoiser import Denoiser, classification_loss
from models.diffusion_ret.noising import schedule
from models.diffusion_ret.options import Options
from models.diffusion_ret.reranking import Features, Sampling, Way, reranked
from models.parts.interaction import token_wise
from models.parts.losses import contrastive
from models.parts.words_frames import (
    WordsFrames,
    check_sizes,
    full_precision,
    halve,
    tokens,
    weigher,
)

DRAWS = (
    "diffusion_t",
    "noise_t2v",
    "noise_v2t",
)  # what a batch may bring: (N,) int64, (N, K) twice, of all processes
_DENOISERS = ("denoise_t2v.", "denoise_v2t.")
_WEIGHT_LAYERS = 2


def build(options: Options, assets: Assets) -> "DiffusionRet":
    """The model with the weights of `assets.init`; a first stage also around `assets.clip` or an
    untrained CLIP.

    Raises Mismatch if the weights are of another backbone or do not fit, or for a second stage
    without a first one.
    """
    if options.stage == "generation" and assets.init is None:
        raise Mismatch(
            "stage generation without a trained first stage: what it re-ranks would be random, and"
            " stay so",
            "Start it from weights of stage discrimination (init: train@..., or --init FILE), or"
            " train that stage.",
        )
    model = DiffusionRet(options, build_clip(options, assets))
    if assets.init is None:
        model.start_from_clip()
    try:
        load_init(model, _with_new_denoisers(model, assets))
    except Mismatch as error:
        alike = (
            "the same backbone, aggregation, temporal_layers and stage (a training may start from"
            " the stage before)"
        )
        raise Mismatch(error.what, f"Use weights of DiffusionRet with {alike}.") from error
    halve(model)
    return model


def candidates(similarity: Tensor, video_index: Tensor, first: int, negatives: int) -> Tensor:
    """Columns int64 (n, 1 + negatives) for queries (n, N): the own one, then the most similar of
    other videos.

    first: the own column of row 0. Columns of the own video come last, in their order; they are
    needed only where there are no others.
    """
    own = torch.arange(first, first + len(similarity), device=similarity.device)
    is_own_video = video_index[own][:, None] == video_index
    order = similarity.masked_fill(is_own_video, -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    return torch.cat([own[:, None], order[:, :negatives]], 1)


class DiffusionRet(WordsFrames):
    """Token ids (B, L) and frames (B, T, S, S, 3) -> words and frames with weights; in stage
    generation two denoisers.

    Text encodings: "tokens" (B, L, D) of length 1, "weight", "real", and for the denoisers
    "sentence" (B, D), the end token, not normalised. Videos: "features" (B, T, D), not normalised
    and padded frames included, "weight", "real".
    """

    def __init__(self, options: Options, clip: CLIP):
        width = clip.sizes.embed
        check_sizes(options, clip.sizes, options.frames * (options.aggregation == "seqTransf"))
        super().__init__(options, clip)
        self.word_weight, self.frame_weight = (
            weigher(_WEIGHT_LAYERS, width, 2 * width) for _ in range(2)
        )
        self.targets = ("video_index",) if self.is_generative else ()
        if self.is_generative:
            settings = (width, options.frame_temperature, options.masked_softmax)
            self.denoise_t2v, self.denoise_v2t = Denoiser(*settings), Denoiser(*settings)
            self.diffusion = schedule(options.schedule, options.diffusion_steps)
            self.sampling = _sampling(options)

    @property
    def is_generative(self) -> bool:
        return self.options.stage == "generation"

    @property
    def padding_counts(self) -> bool:
        return self.is_generative

    def check_batch(self, n: int) -> None:
        needed = 1 + self.options.negatives
        if self.is_generative and n < needed:
            raise Mismatch(
                f"{n} pairs for {self.options.negatives} negatives: a batch (over all processes)"
                f" needs {needed}",
                f"Lower the option negatives to {max(n - 1, 1)} or less, or use batches of {needed}"
                " or more.",
            )

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64, L at most `words`; text_mask (B, L) bool."""
        return self.text_encoding(self.read_text(batch))

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or normalised floats (B, T, 3, S, S); video_mask (B,
        T) bool.
        """
        return self.video_encoding(self.read_video(batch))

    def text_encoding(self, read: Encoding) -> Encoding:
        features, real = read["features"], read["real"]
        weight = self.weights(features, real, "word_weight")
        found = {"tokens": F.normalize(features, dim=-1), "weight": weight, "real": real}
        if self.is_generative:
            found["sentence"] = features[
                torch.arange(len(features), device=features.device), real.sum(1) - 1
            ]
        return found

    def video_encoding(self, read: Encoding) -> Encoding:
        return read | {"weight": self.weights(read["features"], read["real"], "frame_weight")}

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Weighted token-wise cosines (n_t, n_v), without temperature."""
        with full_precision(text["weight"]):
            return {"similarity": token_wise(tokens(text), tokens(video))}

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """token_wise bounds its own memory."""
        return 8

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """The similarities; in stage generation those of the best candidates plus what sampling
        says of them.
        """
        plain = super().fuse(scores, text, video, how)
        if self.sampling is None:
            return plain
        return self.generate(plain, self.generative_features(text, video), how)

    def generative_features(self, text: Encoding, video: Encoding) -> Features:
        return Features(text["sentence"], video["features"], video["real"])

    def generate(self, scores: Ranking, features: Features, how: Fusion) -> Ranking:
        return reranked(scores, features, (self.denoise_t2v, self.denoise_v2t), self.sampling, how)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """As the base class, but features are gathered: weights and scores come after it, as
        published.
        """
        first, processes = own_rows(len(batch["text"]), batch["text"].device)
        n = len(batch["text"])
        text, video = (
            gather(read, self.gather_rule)
            for read in (self.read_text(batch), self.read_video(batch))
        )
        targets = gather({name: batch[name] for name in self.targets}, self.gather_rule)
        targets |= {name: batch[name] for name in DRAWS if name in batch}
        encodings = self.text_encoding(text), self.video_encoding(video)
        return self._losses(*encodings, targets, slice(first, first + n), processes)

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Symmetric InfoNCE of all pairs at the present temperature; in stage generation plus what
        denoising loses.
        """
        return self._losses(text, video, batch, slice(0, len(text["weight"])), 1)

    def _losses(
        self, text: Encoding, video: Encoding, batch: Batch, rows: slice, processes: int
    ) -> dict[str, Tensor]:
        """rows: of this process, which is one of `processes`; the mean over all of them is the loss
        of all rows.
        """
        with full_precision(text["weight"]):
            similarity = self.score(text, video)["similarity"]
            logits = self.clip.logit_scale.exp() * similarity
            terms = {"t2v": contrastive(logits), "v2t": contrastive(logits.T)}
            loss = (terms["t2v"] + terms["v2t"]) / 2
            if self.is_generative:
                share = (rows.stop - rows.start) * processes / len(similarity)
                found = self.denoising(text, video, similarity.detach(), batch, rows)
                terms |= {name: share * value for name, value in found.items()}
                loss = loss + terms["denoise_t2v"] + terms["denoise_v2t"]
            return terms | {"loss": loss}

    def denoising(
        self, text: Encoding, video: Encoding, similarity: Tensor, batch: Batch, rows: slice
    ) -> dict[str, Tensor]:
        """The losses of both denoisers for the queries `rows` of N pairs; batch: "video_index"
        (N,), maybe `DRAWS`.
        """
        self.check_batch(len(similarity))
        draws = self.draw(len(similarity), similarity.device) | {
            name: batch[name] for name in DRAWS if name in batch
        }
        t, sentence, index = draws["diffusion_t"][rows], text["sentence"], batch["video_index"]
        seen = self.denoise_t2v.seen(
            sentence, video["features"], video["real"]
        )  # (texts, videos, D)
        of_text = candidates(
            similarity[rows], index, rows.start, self.options.negatives
        )  # (n, K) videos
        of_video = candidates(
            similarity.T[rows], index, rows.start, self.options.negatives
        )  # texts
        own = of_text[:, :1]
        x_t2v, x_v2t = (
            self.diffusion.noised(self.clean(of_text), t, draws[name][rows])
            for name in ("noise_t2v", "noise_v2t")
        )
        t2v = self.denoise_t2v(x_t2v, t, sentence[rows, None], seen[own, of_text])
        v2t = self.denoise_v2t(x_v2t, t, seen[of_video, own], sentence[of_video])
        factor = self.options.logit_factor
        return {
            "denoise_t2v": classification_loss(t2v, factor),
            "denoise_v2t": classification_loss(v2t, factor),
        }

    def draw(self, n: int, device: torch.device) -> dict[str, Tensor]:
        """Step numbers and noise of n queries, from the global generator, which training seeds by
        its step.
        """
        shape = (n, 1 + self.options.negatives)
        steps = torch.randint(self.options.diffusion_steps, (n,), device=device)
        return dict(
            zip(DRAWS, (steps, *(torch.randn(shape, device=device) for _ in range(2))), strict=True)
        )

    def clean(self, chosen: Tensor) -> Tensor:
        """What denoising aims at, for candidates (n, K): 1 for the first, `clean_negative` for the
        others.
        """
        clean = torch.full(chosen.shape, float(self.options.clean_negative), device=chosen.device)
        clean[:, 0] = 1.0
        return clean


def _with_new_denoisers(model: DiffusionRet, assets: Assets) -> Assets:
    """Where a second stage starts from a first one, the denoisers keep their first values; nothing
    else may lack.
    """
    if not (assets.is_start and model.is_generative) or any(
        name.startswith(_DENOISERS) for name in assets.init
    ):
        return assets
    new = {name: value for name, value in model.state_dict().items() if name.startswith(_DENOISERS)}
    return replace(assets, init=dict(assets.init) | new)


def _sampling(options: Options) -> Sampling:
    t2v = Way(options.t2v_candidates, options.t2v_factor, options.t2v_alpha)
    v2t = Way(options.v2t_candidates, options.v2t_factor, options.v2t_alpha)
    return Sampling(options.schedule, options.diffusion_steps, options.sampling_steps, t2v, v2t)
