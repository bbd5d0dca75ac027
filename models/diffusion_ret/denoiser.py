"""The denoising network of DiffusionRet: which of K candidates belongs to a query.

Paper: Jin et al. 2023, DiffusionRet: Generative Text-Video Retrieval with Diffusion Model, section
3.3. Published code: jpthu17/DiffusionRet; parameter names are its own. Sections 6 and 7 of
docs/specs/diffusionret.md.

This is the plain formulation, which training and tests use. `sampler` gives the same numbers faster
(fast_sampling.py). Both directions are one network: keys, values and the decoder see the candidate,
the query asks.

    text -> video   query: the sentence                            candidate: each video as the
                                                                   sentence sees it
    video -> text   query: the video as each sentence sees it      candidate: each sentence

Where we differ, and why:
- The table of sinusoids is computed where it is needed; published checkpoints hold 5,000 rows of it
  twice.
- `masked_softmax`: padded frames take no part. Published (off): they count in the denominator only,
  so the weights of a short video do not sum to 1 and padding changes its scores.
- The published module has a dropout of 0.1 that is never applied; there is none here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.diffusion_ret.fast_sampling import Features, TextToVideo, VideoToText
from models.diffusion_ret.noising import NoiseSchedule
from models.parts.noise import Direction

_PERIODS = 10_000.0
_INIT_STD = 0.02
_SAMPLERS = {"t2v": TextToVideo, "v2t": VideoToText}


class TimeEmbedding(nn.Module):
    """Step numbers (B,) -> (B, D): sinusoids through a small network."""

    def __init__(self, width: int):
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """t int64 (B,) -> (B, D)."""
        weight = self.time_embed[0].weight
        waves = sinusoids(t.to(weight.device), weight.shape[1])  # (B, D)
        return self.time_embed(waves.to(weight.dtype))


def sinusoids(t: Tensor, width: int) -> Tensor:
    """Return rows of the sinusoid table, float32 (B, width): sin on even channels, cos on odd ones.

    t int64 (B,): the rows.
    """
    # in float32 as the published table: at step 999 float64 would differ by 6e-5
    channels = torch.arange(0, width, 2, device=t.device).float()  # (width / 2,)
    rates = torch.exp(channels * (-math.log(_PERIODS) / width))
    angles = t.float()[:, None] * rates  # (B, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class Denoiser(nn.Module):
    """x (B, K) at step t (B,) -> the clean x_0 (B, K), not clamped, for features of width D.

    temperature: of the attention of a sentence to frames. Permuting the candidates permutes the
    result.
    """

    def __init__(self, width: int, temperature: float = 1.0, masked_softmax: bool = False):
        super().__init__()
        self.width = width
        self.temperature = temperature
        self.masked_softmax = masked_softmax
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.embed_timestep = TimeEmbedding(width)
        self.decoder = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=_INIT_STD)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, t: Tensor, query: Tensor, candidate: Tensor) -> Tensor:
        """x (B, K), t (B,), query (B, 1 or K, D), candidate (B, K, D) -> x_0 (B, K)."""
        step = self.embed_timestep(t)[:, None]  # (B, 1, D)
        q = self.q_proj(query + step)  # (B, 1 or K, D)
        k = self.k_proj(candidate + step)  # (B, K, D)
        v = self.v_proj(candidate + step)  # (B, K, D)
        # as published, not divided by sqrt(D)
        attention = ((q * k).sum(2) + x).softmax(1)  # (B, K)
        found = self.proj((attention[:, None] @ v).squeeze(1))  # (B, D)
        pair = torch.cat([found[:, None].expand_as(candidate), candidate], dim=2)  # (B, K, 2D)
        return self.decoder(pair).squeeze(2) + attention

    def text_to_video(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, real: Tensor
    ) -> Tensor:
        """Return x_0 (B, K) of K candidate videos for each text.

        x (B, K), t (B,), text (B, D); frames (B, K, T, D) and real (B, K, T) of the candidates.
        """
        similarity = (frames @ text[:, None, :, None]).squeeze(3)  # (B, K, T)
        weight = self.frame_weights(similarity, real)
        seen = (weight[:, :, None] @ frames).squeeze(2)  # (B, K, D)
        return self(x, t, text[:, None], seen)

    def video_to_text(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, real: Tensor
    ) -> Tensor:
        """Return x_0 (B, K) of K candidate texts for each video.

        x (B, K), t (B,); text (B, K, D) of the candidates, frames (B, T, D), real (B, T).
        """
        similarity = text @ frames.transpose(1, 2)  # (B, K, T)
        weight = self.frame_weights(similarity, real[:, None])
        seen = weight @ frames  # (B, K, D)
        return self(x, t, seen, text)

    def frame_weights(self, similarity: Tensor, real: Tensor) -> Tensor:
        """Return how much of each frame a sentence sees, (..., T).

        similarity (..., T): inner products of sentence and frames; real (..., T).
        """
        logits = similarity / self.temperature
        if not self.masked_softmax:
            return logits.softmax(-1) * real
        real = real.bool()
        # a video without a real frame is seen as nothing, not as NaN
        lowest = torch.finfo(logits.dtype).min
        return logits.masked_fill(~real, lowest).softmax(-1) * real

    def look(self, text: Tensor, frames: Tensor, real: Tensor) -> Tensor:
        """Return every video as every text sees it, (N_t, N_v, D).

        text (N_t, D), frames (N_v, T, D), real (N_v, T). In training both directions take their
        candidates from this one tensor, which holds T times less than the frames of all candidates.
        """
        similarity = torch.einsum("nd,mtd->nmt", text, frames)
        weight = self.frame_weights(similarity, real)
        return torch.einsum("nmt,mtd->nmd", weight, frames)

    def sampler(
        self, direction: Direction, plan: NoiseSchedule, features: Features, n_pairs: int
    ) -> TextToVideo | VideoToText:
        """Return what samples x_0 (B, K) for the queries of one direction, by the steps of `plan`.

        features: of all texts (N_t) and videos (N_v), on the denoiser's device. n_pairs: how many
        pairs all processes will sample together.
        """
        return _SAMPLERS[direction](self, plan, features, n_pairs)


def sample(
    denoiser: Denoiser, plan: NoiseSchedule, noise: Tensor, query: Tensor, candidate: Tensor
) -> Tensor:
    """Return x (B, K) in [-1, 1] of the plain reverse chain, from noise (B, K).

    query (B, 1 or K, D) and candidate (B, K, D) are those of `Denoiser.forward`.
    """
    x = noise
    for step in reversed(range(len(plan))):
        t = torch.full((len(x),), int(plan.timesteps[step]), device=x.device)
        x0 = denoiser(x, t, query, candidate).clamp(-1, 1)
        x = plan.step_back(x, x0, step)
    return x


def classification_loss(prediction: Tensor, scale: float = 100.0) -> Tensor:
    """Return the cross entropy () of scaled predictions (B, K); candidate 0 is the right one."""
    own = torch.zeros(len(prediction), dtype=torch.int64, device=prediction.device)
    return F.cross_entropy(scale * prediction, own)
