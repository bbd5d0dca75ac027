"""The denoiser in its plain form, and sampling by it and by the form in which nothing is computed
twice.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.diffusion_ret.denoiser import Denoiser, classification_loss, sample, sinusoids
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.noising import schedule

D, T = 32, 5


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return lively(seed=0)


def lively(seed: int, **options: object) -> Denoiser:
    """A denoiser whose weights are not near 0, so that every term counts."""
    torch.manual_seed(seed)
    denoiser = Denoiser(D, **options).eval().requires_grad_(False)
    for value in denoiser.parameters():
        value.normal_(std=0.2)
    return denoiser


def split(n_texts: int = 9, n_videos: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences, frames, and which of 1 to 5 frames are real; padded ones hold numbers too."""
    random = torch.Generator().manual_seed(seed)
    text, frames = (
        torch.randn(*shape, generator=random) for shape in ((n_texts, D), (n_videos, T, D))
    )
    return text, frames, torch.arange(T) < 1 + torch.arange(n_videos)[:, None] % T


def by_loops(d: Denoiser, x: Tensor, t: int, text: Tensor, frames: Tensor, real: Tensor) -> Tensor:
    """text -> video of one query, as the paper writes it: x (K,), text (D,), frames (K, T, D), real
    (K, T).
    """
    c = d.embed_timestep(torch.tensor([t]))[0]
    u = [F.softmax(f @ text, dim=0) * r @ f for f, r in zip(frames, real.float(), strict=True)]
    q, k, z = d.q_proj(text + c), [d.k_proj(one + c) for one in u], [d.v_proj(one + c) for one in u]
    a = F.softmax(torch.stack([q @ one for one in k]) + x, dim=0)
    n = d.proj(sum(weight * one for weight, one in zip(a, z, strict=True)))
    return torch.stack(
        [d.decoder(torch.cat([n, one]))[0] + weight for one, weight in zip(u, a, strict=True)]
    )


def test_text_to_video_is_the_formula_of_the_paper(denoiser: Denoiser) -> None:
    text, frames, real = split()
    x = torch.randn(2, 7)

    found = denoiser.text_to_video(
        x, torch.tensor([3, 8]), text[:2], frames.expand(2, -1, -1, -1), real.expand(2, -1, -1)
    )

    expected = [by_loops(denoiser, x[n], t, text[n], frames, real) for n, t in enumerate((3, 8))]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


def test_directions_are_the_recorded_ones(shared: Path) -> None:
    case = shared / "golden" / "diffusionret" / "sample_cosine5_cosine10_linear25"
    given, expected = (
        {name: torch.from_numpy(array) for name, array in np.load(case / file).items()}
        for file in ("inputs.npz", "outputs.npz")
    )
    t2v, v2t = recorded(case)

    a = t2v.text_to_video(
        *(given[k] for k in ("single_x", "single_t", "query_text", "cand_video", "cand_video_mask"))
    )
    b = v2t.video_to_text(
        *(
            given[k]
            for k in ("single_x", "single_t", "cand_text", "query_video", "query_video_mask")
        )
    )

    torch.testing.assert_close(a, expected["single/t2v/x0_pred"], atol=1e-5, rtol=0)
    torch.testing.assert_close(b, expected["single/v2t/x0_pred"], atol=1e-5, rtol=0)


def recorded(case: Path) -> list[Denoiser]:
    state = torch.load(case / "checkpoint.pth", weights_only=True)
    made = []
    for prefix in ("diffusion_model.", "diffusion_model_v."):
        own = {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}
        made.append(Denoiser(64).eval().requires_grad_(False))
        made[-1].load_state_dict({k: v for k, v in own.items() if not k.endswith(".pe")})
    return made


def test_permuting_candidates_permutes_the_answer(denoiser: Denoiser) -> None:
    x, query, candidates = torch.randn(2, 6), torch.randn(2, 1, D), torch.randn(2, 6, D)
    order, t = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4, 4])

    found = denoiser(x[:, order], t, query, candidates[:, order])

    torch.testing.assert_close(
        found, denoiser(x, t, query, candidates)[:, order], atol=1e-5, rtol=0
    )


def test_padded_frames_count_as_published_unless_the_softmax_is_masked() -> None:
    text, frames, real = split()
    other = torch.where(real[..., None], frames, torch.randn_like(frames))

    published, masked = lively(0), lively(0, masked_softmax=True)

    assert not torch.allclose(
        published.look(text, frames, real), published.look(text, other, real), atol=1e-3
    )
    torch.testing.assert_close(masked.look(text, frames, real), masked.look(text, other, real))


def test_a_video_without_real_frames_is_seen_as_nothing() -> None:
    text, frames, real = split()

    seen = lively(0, masked_softmax=True).look(text, frames, torch.zeros_like(real))

    assert (seen == 0).all()


def test_look_is_what_both_directions_look_at(denoiser: Denoiser) -> None:
    text, frames, real = split(9, 7)
    x, t = torch.randn(7, 9), torch.full((7,), 2)

    seen = denoiser.look(text, frames, real)

    direct = denoiser.video_to_text(x, t, text.expand(7, -1, -1), frames, real)
    torch.testing.assert_close(
        denoiser(x, t, seen.transpose(0, 1), text.expand(7, -1, -1)), direct, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("n_pairs", [1, 10**6])  # pairs, or the whole gallery, are projected
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "plan", [schedule("cosine", 10), schedule("linear", 25), schedule("cosine", 50, 7)]
)
def test_text_to_video_samples_are_those_of_the_plain_chain(
    n_pairs: int, masked: bool, plan
) -> None:
    denoiser = lively(1, masked_softmax=masked, temperature=2.0)
    text, frames, real = split()
    candidates = torch.stack([torch.randperm(7)[:6] for _ in range(9)])
    noise = torch.randn(9, 6)

    found = denoiser.sampler("t2v", plan, Features(text, frames, real), n_pairs)(
        torch.arange(9), candidates, noise
    )

    seen = denoiser.look(text, frames, real)[torch.arange(9)[:, None], candidates]
    torch.testing.assert_close(
        found, sample(denoiser, plan, noise, text[:, None], seen), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("n_pairs", [1, 10**6])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "plan", [schedule("cosine", 10), schedule("linear", 25), schedule("cosine", 50, 7)]
)
def test_video_to_text_samples_are_those_of_the_plain_chain(
    n_pairs: int, masked: bool, plan
) -> None:
    denoiser = lively(1, masked_softmax=masked, temperature=2.0)
    text, frames, real = split()
    candidates = torch.stack([torch.randperm(9)[:4] for _ in range(7)])
    noise = torch.randn(7, 4)

    found = denoiser.sampler("v2t", plan, Features(text, frames, real), n_pairs)(
        torch.arange(7), candidates, noise
    )

    seen = denoiser.look(text, frames, real)[candidates, torch.arange(7)[:, None]]
    torch.testing.assert_close(
        found, sample(denoiser, plan, noise, seen, text[candidates]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("sign", [-1.0, 0.0, 1.0])
def test_decoders_whose_units_all_count_alike_sample_the_same(sign: float) -> None:
    denoiser, plan = lively(2), schedule("cosine", 5)
    denoiser.decoder[2].weight.abs_().mul_(sign)
    text, frames, real = split()
    noise, everything = torch.randn(9, 7), torch.arange(7).expand(9, -1)

    sampler = denoiser.sampler("t2v", plan, Features(text, frames, real), 1)
    found = sampler(torch.arange(9), everything, noise)

    seen = denoiser.look(text, frames, real)
    torch.testing.assert_close(
        found, sample(denoiser, plan, noise, text[:, None], seen), atol=1e-5, rtol=0
    )


def test_recorded_chains_are_reproduced(shared: Path) -> None:
    case = shared / "golden" / "diffusionret" / "sample_cosine5_cosine10_linear25"
    given, expected = np.load(case / "inputs.npz"), np.load(case / "outputs.npz")
    query, frames, real = (
        torch.from_numpy(given[k]) for k in ("query_text", "cand_video", "cand_video_mask")
    )
    every = torch.arange(4 * 9).view(4, 9)

    for name, steps in (("cosine", 5), ("cosine", 10), ("linear", 25)):
        plan, noise = schedule(name, steps), torch.from_numpy(given[f"noise/{name}{steps}/t2v"])
        seen = Features(query, frames.flatten(0, 1), real.flatten(0, 1))
        sampler = recorded(case)[0].sampler("t2v", plan, seen, n_pairs=36)

        found = sampler(torch.arange(4), every, noise)

        assert np.abs(found.numpy() - expected[f"x/{name}{steps}/t2v"][-1]).max() < 1e-5


def test_sinusoids_are_the_rows_of_the_published_table(shared: Path) -> None:
    state = torch.load(
        shared / "golden" / "diffusionret" / "eval_12x12_cosine10" / "checkpoint.pth",
        weights_only=True,
    )
    table = state["diffusion_model.sequence_pos_encoder.pe"][:, 0]

    torch.testing.assert_close(sinusoids(torch.arange(len(table)), 64), table, atol=1e-5, rtol=0)


def test_the_loss_is_lowest_where_the_first_candidate_is_chosen() -> None:
    right, wrong = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])

    assert classification_loss(right).item() < 1e-6
    assert classification_loss(wrong).item() == pytest.approx(100.0)
