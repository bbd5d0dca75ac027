"""Schedules, the forward process and the deterministic step backwards."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import Mismatch
from models.diffusion_ret.noising import named_betas, schedule


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("cosine", 5),
        ("cosine", 10),
        ("cosine", 50),
        ("cosine", 1000),
        ("linear", 25),
        ("linear", 50),
        ("linear", 1000),
    ],
)
def test_tables_are_the_published_ones(golden: Path, name: str, steps: int) -> None:
    recorded = np.load(golden / "diffusionret" / "schedules" / "outputs.npz")

    found = schedule(name, steps)

    np.testing.assert_allclose(
        named_betas(name, steps), recorded[f"{name}{steps}/betas_named"], rtol=1e-9
    )
    for table in ("betas", "alphas_cumprod", "alphas_cumprod_prev"):
        np.testing.assert_allclose(
            getattr(found, table), recorded[f"{name}{steps}/{table}"], rtol=1e-9
        )
    assert (found.timesteps == recorded[f"{name}{steps}/timestep_map"]).all()


@pytest.mark.parametrize("steps", [1, 10, 19, 20])
def test_linear_schedule_of_too_few_steps_is_refused(steps: int) -> None:
    with pytest.raises(Mismatch, match="at least 21") as caught:
        schedule("linear", steps)

    assert "cosine" in caught.value.fix


def test_smallest_linear_schedule_samples_finite_numbers() -> None:
    plan = schedule("linear", 21)

    x = plan.step_back(torch.randn(2, 3), torch.zeros(2, 3), len(plan) - 1)

    assert x.isfinite().all()


@pytest.mark.parametrize("steps", [0, 51, 1000])
def test_more_sampling_steps_than_the_schedule_has_are_refused(steps: int) -> None:
    with pytest.raises(Mismatch, match=f"{steps} sampling steps of a schedule of 50") as caught:
        schedule("cosine", 50, steps)

    assert "1 to 50" in caught.value.fix


@pytest.mark.parametrize("steps", [1, 2, 7, 49])
def test_fewer_steps_are_spread_over_the_schedule_and_keep_its_noise(steps: int) -> None:
    whole, some = schedule("cosine", 50), schedule("cosine", 50, steps)

    assert len(set(some.timesteps)) == steps and some.timesteps[-1] == 49
    np.testing.assert_allclose(some.alphas_cumprod, whole.alphas_cumprod[some.timesteps], rtol=1e-9)


def test_a_noised_vector_is_the_clean_vector_early_and_noise_late() -> None:
    plan, clean, noise = schedule("cosine", 1000), torch.ones(2, 4), torch.randn(2, 4)

    early, late = plan.add_noise(clean, torch.tensor([0, 999]), noise)

    torch.testing.assert_close(early, clean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(late, noise[1], atol=0.05, rtol=0)


def test_steps_back_with_the_true_answer_undo_the_noise() -> None:
    plan, clean = schedule("cosine", 10), torch.tensor([[1.0, 0.0, -1.0]])
    x = plan.add_noise(clean, torch.tensor([9]), torch.tensor([[0.3, -2.0, 1.0]]))

    for step in reversed(range(10)):
        x = plan.step_back(x, clean, step)

    torch.testing.assert_close(x, clean)
