"""DiffusionRet: compare all texts with all videos, then re-rank the best candidates by denoising.

Paper: Jin et al. 2023, DiffusionRet: Generative Text-Video Retrieval with Diffusion Model (ICCV
2023), sections 3.2 (discriminative), 3.3 (generative), 3.4 (both losses), 3.5 (inference).
Published code: jpthu17/DiffusionRet: tvr/models/modeling.py, main_retrieval.py;
docs/specs/diffusionret.md, sections 3 to 8.

    here                                  there
    parts/words_frames.py                 get_text_feat, get_video_feat, wti_interaction: shared
                                          with DRL
    denoiser.py                           diffusion_model, diffusion_model_v
    noising.py                            the noise schedules and one step of the process
    reranking.py                          the inference of stage generation
    candidates, DiffusionRet.denoise      the generator's losses

Where we differ, and why:
- Each process denoises for its own rows; in the published code every process computes all of them.
  With `train.seed_scope: same` the gradients are those of one process.
- Candidates are taken from one tensor that holds every video as every text sees it; the published
  code copies the frames per pair, which holds T times as much.
- Rows of the same video are known by `video_index`; the published code compares hashes, which
  differ between processes.
- Evaluation draws noise by query, so ranks do not depend on batches. A gallery smaller than the
  number of candidates is re-ranked as a whole; the published code stops.
- With negatives = B - 1 every row becomes a candidate. Like the published code we then place the
  query's own row and other rows of its video last, and they count as negatives.
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
    gather,
    load_init,
    own_rows,
)
from models.clip.build import build_clip
from models.clip.towers import CLIP, full_precision
from models.diffusion_ret.denoiser import Denoiser, classification_loss
from models.diffusion_ret.noising import schedule
from models.diffusion_ret.options import Options
from models.diffusion_ret.reranking import DenoisingStage, SamplingSettings, Way
from models.parts.interaction import token_wise
from models.parts.losses import contrastive
from models.parts.words_frames import (
    WordsFrames,
    check_sizes,
    tokens,
    weigher,
    weighted_mean,
)

# what a batch may bring of all processes: (N,) int64, and noise (N, K) for each direction
DRAWS = ("diffusion_t", "noise_t2v", "noise_v2t")
_DENOISERS = ("denoise_t2v.", "denoise_v2t.")
_WEIGHT_LAYERS = 2


def build(options: Options, assets: Assets) -> "DiffusionRet":
    """Return the model with the weights of `assets.init`, or a new first stage.

    A new first stage starts from `assets.clip`, or from an untrained CLIP. Raises Mismatch if the
    weights are of another backbone or do not fit, or for a second stage without a first one.
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
        load_init(model, _add_new_denoisers(model, assets))
    except Mismatch as error:
        alike = (
            "the same backbone, aggregation, temporal_layers and stage (a training run may start"
            " from the stage before)"
        )
        raise Mismatch(error.what, f"Use weights of DiffusionRet with {alike}.") from error
    model.halve()
    return model


def candidates(similarity: Tensor, video_index: Tensor, first: int, negatives: int) -> Tensor:
    """Return columns int64 (n, 1 + negatives): the own one, then the most similar of other videos.

    similarity (n, N): of n queries; video_index (N,); first: the own column of row 0. Columns of
    the own video come last, in their order; they are needed only where there are no others.
    """
    own = torch.arange(first, first + len(similarity), device=similarity.device)  # (n,)
    is_own_video = video_index[own][:, None] == video_index  # (n, N)
    others = similarity.masked_fill(is_own_video, -torch.inf)
    order = others.argsort(dim=1, descending=True, stable=True)
    return torch.cat([own[:, None], order[:, :negatives]], 1)


class DiffusionRet(WordsFrames):
    """Token ids (B, L) and frames (B, T, S, S, 3) -> words and frames with weights.

    Stage generation adds two denoisers. Text encodings: "tokens" (B, L, D) of length 1, "weight"
    and "real" (B, L), and for the denoisers "sentence" (B, D), the end token, not normalised. Video
    encodings: "features" (B, T, D), not normalised and padded frames included, "weight" and "real"
    (B, T).
    """

    summaries = "candidates"

    def __init__(self, options: Options, clip: CLIP):
        width = clip.sizes.embed
        positions = options.frames if options.aggregation == "seqTransf" else 0
        check_sizes(options, clip.sizes, positions)
        super().__init__(options, clip)
        self.word_weight = weigher(_WEIGHT_LAYERS, width, 2 * width)
        self.frame_weight = weigher(_WEIGHT_LAYERS, width, 2 * width)
        self.targets = ("video_index",) if self.is_generative else ()
        if self.is_generative:
            settings = (width, options.frame_temperature, options.masked_softmax)
            self.denoise_t2v = Denoiser(*settings)
            self.denoise_v2t = Denoiser(*settings)
            self.diffusion = schedule(options.schedule, options.diffusion_steps)
            self.second_stage = DenoisingStage(
                self.denoise_t2v, self.denoise_v2t, _settings_of(options)
            )

    @property
    def is_generative(self) -> bool:
        """Whether the model has denoisers."""
        return self.options.stage == "generation"

    @property
    def padding_counts(self) -> bool:
        """Whether anything reads the features of padded frames: the denoisers do."""
        return self.is_generative

    def check_batch(self, n: int) -> None:
        """Raise Mismatch if n pairs are too few for the negatives of stage generation."""
        needed = 1 + self.options.negatives
        if self.is_generative and n < needed:
            raise Mismatch(
                f"{n} pairs for {self.options.negatives} negatives: a batch (over all processes)"
                f" needs {needed}",
                f"Lower the option negatives to {max(n - 1, 1)} or less, or use batches of {needed}"
                " or more.",
            )

    def text_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of texts that were read: features (B, L, D), real (B, L)."""
        features = read["features"]
        real = read["real"]
        weight = self.weights(features, real, "word_weight")
        encoding = {"tokens": F.normalize(features, dim=-1), "weight": weight, "real": real}
        if self.is_generative:
            rows = torch.arange(len(features), device=features.device)
            last_word = real.sum(1) - 1
            encoding["sentence"] = features[rows, last_word]  # (B, D)
        return encoding

    def video_encoding(self, read: Encoding) -> Encoding:
        """Return the encoding of videos that were read: features (B, T, D), real (B, T)."""
        return read | {"weight": self.weights(read["features"], read["real"], "frame_weight")}

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return weighted token-wise cosines (n_t, n_v), without temperature."""
        with full_precision(text["weight"]):
            similarity = token_wise(tokens(text), tokens(video), padding_counts=self.padding_wins)
            return {"similarity": similarity}

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes per pair (n_t, n_v) of `score`; token_wise bounds its own memory."""
        return 8

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return words or frames averaged by their weights, (n, D)."""
        return weighted_mean(encoding)

    def similar(self, video: Encoding, others: Encoding, statistics: Mapping[str, float]) -> Tensor:
        """Return token-wise scores (n, m), frame by frame; denoisers need a sentence."""
        return self.score(video, others)["similarity"]

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """Return the similarities (N_t, N_v) and their transpose, re-ranked in stage generation.

        Raises Mismatch if the second stage needs noise and `how` has none.
        """
        plain = super().fuse(scores, text, video, how)
        if self.second_stage is None:
            return plain
        return self.second_stage.rerank(plain, text, video, how)

    def losses(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return the losses () of the B texts and videos that each process has read.

        As published, features are gathered: weights and scores come after it. Raises Mismatch for a
        batch that is too small.
        """
        n = len(batch["text"])
        first, processes = own_rows(n, batch["text"].device)
        text = gather(text, self.gather_rule)
        video = gather(video, self.gather_rule)
        targets = gather({name: batch[name] for name in self.targets}, self.gather_rule)
        targets |= _draws_of(batch)
        return self._losses(
            self.text_encoding(text),
            self.video_encoding(video),
            targets,
            rows=slice(first, first + n),
            processes=processes,
        )

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return symmetric InfoNCE () of N pairs, plus the denoising losses of stage generation.

        Raises Mismatch for a batch that is too small.
        """
        rows = slice(0, len(text["weight"]))
        return self._losses(text, video, batch, rows, processes=1)

    def _losses(
        self, text: Encoding, video: Encoding, batch: Batch, rows: slice, processes: int
    ) -> dict[str, Tensor]:
        """rows: of this process, one of `processes`; the mean over them is the loss of all rows."""
        with full_precision(text["weight"]):
            similarity = self.score(text, video)["similarity"]  # (N, N)
            logits = self.clip.logit_scale.exp() * similarity
            terms = {"t2v": contrastive(logits), "v2t": contrastive(logits.T)}
            loss = (terms["t2v"] + terms["v2t"]) / 2
            if self.is_generative:
                share = (rows.stop - rows.start) * processes / len(similarity)
                own = self.denoise(text, video, similarity.detach(), batch, rows)
                terms |= {name: share * value for name, value in own.items()}
                loss = loss + terms["denoise_t2v"] + terms["denoise_v2t"]
            return terms | {"loss": loss}

    def denoise(
        self, text: Encoding, video: Encoding, similarity: Tensor, batch: Batch, rows: slice
    ) -> dict[str, Tensor]:
        """Return the losses () of both denoisers for the queries `rows` of N pairs.

        similarity (N, N); batch: "video_index" (N,), maybe `DRAWS`. Raises Mismatch if there are
        too few pairs.
        """
        n_pairs = len(similarity)
        self.check_batch(n_pairs)
        draws = self.draw(n_pairs, similarity.device) | _draws_of(batch)
        negatives = self.options.negatives
        index = batch["video_index"]
        sentence = text["sentence"]
        t = draws["diffusion_t"][rows]
        seen = self.denoise_t2v.look(sentence, video["features"], video["real"])  # (N, N, D)
        of_text = candidates(similarity[rows], index, rows.start, negatives)  # (n, K) videos
        of_video = candidates(similarity.T[rows], index, rows.start, negatives)  # (n, K) texts
        own = of_text[:, :1]  # (n, 1)
        x_t2v = self.diffusion.add_noise(self.clean_answer(of_text), t, draws["noise_t2v"][rows])
        x_v2t = self.diffusion.add_noise(self.clean_answer(of_text), t, draws["noise_v2t"][rows])
        t2v = self.denoise_t2v(x_t2v, t, sentence[rows, None], seen[own, of_text])  # (n, K)
        v2t = self.denoise_v2t(x_v2t, t, seen[of_video, own], sentence[of_video])  # (n, K)
        factor = self.options.logit_factor
        return {
            "denoise_t2v": classification_loss(t2v, factor),
            "denoise_v2t": classification_loss(v2t, factor),
        }

    def draw(self, n: int, device: torch.device) -> dict[str, Tensor]:
        """Return step numbers int64 (n,) and noise (n, K) twice, under the names of `DRAWS`.

        They come from the global generator, which training seeds by its step.
        """
        shape = (n, 1 + self.options.negatives)
        return {
            "diffusion_t": torch.randint(self.options.diffusion_steps, (n,), device=device),
            "noise_t2v": torch.randn(shape, device=device),
            "noise_v2t": torch.randn(shape, device=device),
        }

    def clean_answer(self, chosen: Tensor) -> Tensor:
        """Return what denoising aims at, (n, K): 1 for candidate 0, else `clean_negative`.

        chosen (n, K): the candidates.
        """
        clean = torch.full(chosen.shape, float(self.options.clean_negative), device=chosen.device)
        clean[:, 0] = 1.0
        return clean


def _draws_of(batch: Batch) -> dict[str, Tensor]:
    return {name: batch[name] for name in DRAWS if name in batch}


def _add_new_denoisers(model: DiffusionRet, assets: Assets) -> Assets:
    """Return the assets, with first values for the denoisers where a second stage starts from a
    first one.

    Nothing else may be missing.
    """
    if not (assets.is_start and model.is_generative):
        return assets
    if any(name.startswith(_DENOISERS) for name in assets.init):
        return assets
    new = {name: value for name, value in model.state_dict().items() if name.startswith(_DENOISERS)}
    return replace(assets, init=dict(assets.init) | new)


def _settings_of(options: Options) -> SamplingSettings:
    return SamplingSettings(
        schedule=options.schedule,
        diffusion_steps=options.diffusion_steps,
        steps=options.sampling_steps,
        t2v=Way(options.t2v_candidates, options.t2v_factor, options.t2v_alpha),
        v2t=Way(options.v2t_candidates, options.v2t_factor, options.v2t_alpha),
    )
