"""Re-ranks a small gallery, alone or as one of two processes; the first one writes both
matrices.
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from models.base import Fusion, Ranking
from models.diffusion_ret.denoiser import Denoiser
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.reranking import DenoisingStage, SamplingSettings, Way
from models.parts.noise import KeyedNoise, keys

D, T, N_TEXTS, N_VIDEOS = 16, 3, 23, 17
SAMPLING = SamplingSettings(diffusion_steps=10, t2v=Way(6, 2.0, 0.5), v2t=Way(8))


def features(n_texts: int = N_TEXTS, n_videos: int = N_VIDEOS) -> Features:
    random = torch.Generator().manual_seed(0)
    text, frames = (
        torch.randn(*shape, generator=random) for shape in ((N_TEXTS, D), (N_VIDEOS, T, D))
    )
    real = torch.arange(T) < 1 + torch.arange(N_VIDEOS)[:, None] % T
    return Features(text[:n_texts], frames[:n_videos], real[:n_videos])


def similarity(n_texts: int = N_TEXTS, n_videos: int = N_VIDEOS) -> Ranking:
    scores = torch.rand(N_TEXTS, N_VIDEOS, generator=torch.Generator().manual_seed(1))[
        :n_texts, :n_videos
    ]
    return Ranking(scores, scores.T)


def denoisers() -> tuple[Denoiser, Denoiser]:
    torch.manual_seed(0)
    made = Denoiser(D).eval().requires_grad_(False), Denoiser(D).eval().requires_grad_(False)
    for value in (value for denoiser in made for value in denoiser.parameters()):
        value.normal_(std=0.3)
    return made


def noise(seed: int = 0) -> KeyedNoise:
    return KeyedNoise(
        seed,
        keys([f"text {n}" for n in range(N_TEXTS)]),
        keys([f"video{n}" for n in range(N_VIDEOS)]),
    )


def rerank(
    how: Fusion,
    scores: Ranking | None = None,
    seen: Features | None = None,
    settings: SamplingSettings = SAMPLING,
    networks: tuple[Denoiser, Denoiser] | None = None,
) -> Ranking:
    """The small gallery re-ranked, or what is given instead of a part of it."""
    seen = features() if seen is None else seen
    stage = DenoisingStage(*(networks or denoisers()), settings)
    video = {"features": seen.frames, "real": seen.real}
    return stage.rerank(scores or similarity(), {"sentence": seen.text}, video, how)


def main(out: str, store: str, rank: int, processes: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    found = rerank(Fusion(noise(), rank, processes))
    if rank == 0:
        np.savez(out, **{side: scores.numpy() for side, scores in found._asdict().items()})
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
