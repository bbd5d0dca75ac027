"""Noise schedules of a discrete diffusion, the forward process, and one deterministic step back.

Papers: Ho et al. 2020 (the process, linear schedule), Nichol & Dhariwal 2021 (cosine schedule,
respacing), Song et al. 2021 (DDIM, here with eta 0). As in jpthu17/DiffusionRet
(docs/specs/diffusionret.md, section 5). Tables are float64; values become float32 when they meet a
tensor. The network predicts x_0, so no variance is needed.

Where we differ, and why:
- A chain may take fewer steps than its schedule has; the published code always takes all of them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.base import Mismatch
from models.diffusion_ret.options import MIN_LINEAR

Name = Literal["cosine", "linear"]
_MAX_BETA = 0.999  # cosine
_OFFSET = 0.008  # cosine


def named_betas(name: Name, steps: int) -> np.ndarray:
    """Return the variances of the forward steps as the formula gives them, float64 (steps,).

    linear: from 0.1 / steps to 20 / steps. cosine: the ratios of a squared cosine, at most 0.999.
    Raises Mismatch if the schedule has too few steps.
    """
    least = MIN_LINEAR if name == "linear" else 1
    if steps < least:
        raise Mismatch(
            f"the {name} schedule with {steps} diffusion steps: it needs at least {least}",
            f"Use at least {least} diffusion steps, or the cosine schedule.",
        )
    if name == "linear":
        return np.linspace(0.1 / steps, 20 / steps, steps, dtype=np.float64)
    kept = [_squared_cosine(n / steps) for n in range(steps + 1)]
    return np.array([min(1 - kept[n + 1] / kept[n], _MAX_BETA) for n in range(steps)])


def _squared_cosine(time: float) -> float:
    """Return the share of the signal that is left at a time from 0 to 1."""
    return math.cos((time + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2


@dataclass(frozen=True)
class NoiseSchedule:
    """S steps of a diffusion.

    timesteps int64 (S,): what the network is told at each step, its place in the schedule it
    learnt. float64 (S,): betas, alphas_cumprod A, and alphas_cumprod_prev, which is A one step
    earlier and starts with 1.
    """

    timesteps: np.ndarray
    betas: np.ndarray
    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray

    def __len__(self) -> int:
        return len(self.timesteps)

    def add_noise(self, x0: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return x_t (B, K) = sqrt(A) x0 + sqrt(1 - A) noise, from x0 and noise (B, K).

        step int64 (B,): places in this schedule.
        """
        kept = torch.from_numpy(self.alphas_cumprod).to(step.device)[step][:, None]  # (B, 1)
        signal_share = kept.sqrt().to(x0.dtype)
        noise_share = (1 - kept).sqrt().to(x0.dtype)
        return signal_share * x0 + noise_share * noise

    def step_back(self, x: Tensor, x0: Tensor, step: int) -> Tensor:
        """Return x (B, K) one step earlier, by DDIM with eta 0. Step 0 gives x0.

        x (B, K): at this step; x0 (B, K): what the network predicts, in [-1, 1].
        """
        kept = float(self.alphas_cumprod[step])
        before = float(self.alphas_cumprod_prev[step])
        noise = (x * math.sqrt(1 / kept) - x0) / math.sqrt(1 / kept - 1)
        return math.sqrt(before) * x0 + math.sqrt(1 - before) * noise


def schedule(name: Name, diffusion_steps: int, steps: int | None = None) -> NoiseSchedule:
    """Return `steps`, or all, evenly spaced steps of a schedule, the last one included.

    Betas are recomputed from the cumulative products of the steps that are kept. The published code
    does so even where it keeps all of them, so they differ from `named_betas` in the last bits.
    Raises Mismatch if the schedule does not have that many steps.
    """
    cumulative = np.cumprod(1 - named_betas(name, diffusion_steps))
    wanted = diffusion_steps if steps is None else steps
    if not 1 <= wanted <= diffusion_steps:
        raise Mismatch(
            f"{wanted} sampling steps of a schedule of {diffusion_steps} diffusion steps",
            f"Sample with 1 to {diffusion_steps} steps: the denoiser was trained on no others.",
        )
    places = np.linspace(diffusion_steps - 1, 0, wanted).round().astype(np.int64)
    timesteps = places[::-1].copy()
    kept = cumulative[timesteps]
    betas = 1 - kept / np.append(1.0, kept[:-1])
    kept = np.cumprod(1 - betas)
    return NoiseSchedule(
        timesteps=timesteps,
        betas=betas,
        alphas_cumprod=kept,
        alphas_cumprod_prev=np.append(1.0, kept[:-1]),
    )
