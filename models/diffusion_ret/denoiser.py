"""The denoising network of DiffusionRet: which of K candidates belongs to a query, from a noisy
answer.

Paper: Jin et al. 2023, DiffusionRet: Generative Text-Video Retrieval with Diffusion Model, section
3.3. Published code: jpthu17/DiffusionRet; parameter names are its own
(docs/specs/diffusionret.md, section 6).

The plain formulation: training and the tests use it. Sampling uses `diffusion_sampling`, which
gives the same numbers. Both directions are one network: the candidate is what keys, values and the
decoder see, the query is what asks.

    text -> video   query = the sentence                          candidate = each video as the
      sentence sees it
    video -> text   query = the video as each sentence sees it    candidate = each sentence

Where we differ, and why:
- The sinusoid table is computed where it is needed, published checkpoints hold 5,000 rows of it
  twice.
- `masked_softmax`: padded frames take no part. Published (off): they count in the denominator only,
  so that the weights of a short video do not sum to 1 and padding changes its scores.
- The published module has a dropout of 0.1 that is never applied; there is none here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.diffusion_ret.noising import Schedule

_PERIODS = 10_000.0
_INIT_STD = 0.02


class TimeEmbedding(nn.Module):
    """Step numbers (B,) -> (B, D): sinusoids through a small network."""

    def __init__(self, width: int):
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        weight = self.time_embed[0].weight
        return self.time_embed(sinusoids(t.to(weight.device), weight.shape[1]).to(weight.dtype))


def sinusoids(t: Tensor, width: int) -> Tensor:
    """Rows of the sinusoid table, float32 (B, width): sin on even channels, cos on odd ones."""
    # in float32 as the published table: at step 999 float64 would differ by 6e-5
    rates = torch.exp(
        torch.arange(0, width, 2, device=t.device).float() * (-math.log(_PERIODS) / width)
    )
    angles = t.float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class Denoiser(nn.Module):
    """x (B, K) at step t (B,) -> the clean x_0 (B, K), not clamped, for features of width D.

    temperature: of the attention of a sentence to frames. Permuting the candidates permutes the
    result.
    """

    def __init__(self, width: int, temperature: float = 1.0, masked_softmax: bool = False):
        super().__init__()
        self.width, self.temperature, self.masked_softmax = width, temperature, masked_softmax
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )
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
        """query (B, 1 or K, D), candidate (B, K, D)."""
        step = self.embed_timestep(t)[:, None]  # (B, 1, D)
        q, k, v = (
            self.q_proj(query + step),
            self.k_proj(candidate + step),
            self.v_proj(candidate + step),
        )
        attention = ((q * k).sum(2) + x).softmax(1)  # (B, K); not divided by sqrt(D), as published
        found = self.proj((attention[:, None] @ v).squeeze(1))  # (B, D)
        pair = torch.cat([found[:, None].expand_as(candidate), candidate], dim=2)
        return self.decoder(pair).squeeze(2) + attention

    def text_to_video(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, real: Tensor
    ) -> Tensor:
        """text (B, D), frames (B, K, T, D) and real (B, K, T) of the candidates."""
        weight = self.frame_weights((frames @ text[:, None, :, None]).squeeze(3), real)
        seen = (weight[:, :, None] @ frames).squeeze(2)  # (B, K, D)
        return self(x, t, text[:, None], seen)

    def video_to_text(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, real: Tensor
    ) -> Tensor:
        """text (B, K, D) of the candidates, frames (B, T, D), real (B, T)."""
        weight = self.frame_weights(text @ frames.transpose(1, 2), real[:, None])  # (B, K, T)
        return self(x, t, weight @ frames, text)

    def frame_weights(self, similarity: Tensor, real: Tensor) -> Tensor:
        """How much of each frame a sentence sees, (..., T), from inner products (..., T) and real
        (..., T).
        """
        logits = similarity / self.temperature
        if not self.masked_softmax:
            return logits.softmax(-1) * real
        real = real.bool()
        # a video without a real frame is seen as nothing, not as NaN
        return logits.masked_fill(~real, torch.finfo(logits.dtype).min).softmax(-1) * real

    def seen(self, text: Tensor, frames: Tensor, real: Tensor) -> Tensor:
        """Every video as every text sees it, (N_t, N_v, D), from text (N_t, D), frames (N_v, T, D),
        real (N_v, T).

        In training both directions take their candidates from this one tensor, which holds T times
        less than the frames of all candidates.
        """
        weight = self.frame_weights(torch.einsum("nd,mtd->nmt", text, frames), real)
        return torch.einsum("nmt,mtd->nmd", weight, frames)


def sample(
    denoiser: Denoiser, plan: Schedule, noise: Tensor, query: Tensor, candidate: Tensor
) -> Tensor:
    """The plain reverse chain: x (B, K) in [-1, 1] from noise (B, K); query and candidate as
    `Denoiser.forward`.
    """
    x = noise
    for step in reversed(range(len(plan))):
        t = torch.full((len(x),), int(plan.timesteps[step]), device=x.device)
        x = plan.back(x, denoiser(x, t, query, candidate).clamp(-1, 1), step)
    return x


def classification_loss(prediction: Tensor, scale: float = 100.0) -> Tensor:
    """() Cross entropy of scaled predictions (B, K) against candidate 0, which is the query's own
    (docs/specs/diffusionret.md, section 7).
    """
    own = torch.zeros(len(prediction), dtype=torch.int64, device=prediction.device)
    return F.cross_entropy(scale * prediction, own)
