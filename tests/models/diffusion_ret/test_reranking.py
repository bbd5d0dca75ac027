"""Re-ranking a whole gallery by sampling: which candidates, which numbers, and that nothing else
matters.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import Fusion, Mismatch, Ranking
from models.diffusion_ret.denoiser import sample
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.noising import schedule
from models.diffusion_ret.reranking import (
    DenoisingStage,
    SamplingSettings,
    Way,
    best_candidates,
)
from tests.models.diffusion_ret.reranking_worker import (
    N_TEXTS,
    N_VIDEOS,
    SAMPLING,
    D,
    denoisers,
    features,
    noise,
    rerank,
    similarity,
)
from tests.models.diffusion_ret.test_denoiser import recorded

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def found() -> Ranking:
    return rerank(Fusion(noise()))


def test_a_recorded_evaluation_is_reproduced(shared: Path) -> None:
    case = shared / "golden" / "diffusionret" / "eval_12x12_cosine10"
    given, expected = (
        {name: torch.from_numpy(array) for name, array in np.load(case / file).items()}
        for file in ("inputs.npz", "outputs.npz")
    )
    seen = Features(expected["sentence_feature"], expected["video_features"], given["video_mask"])
    plain = Ranking(expected["sim_t2v"], expected["sim_t2v"].T)
    sampling = SamplingSettings("cosine", 10, t2v=Way(5), v2t=Way(4))

    result = rerank(Fusion(Recorded(given)), plain, seen, sampling, tuple(recorded(case)))

    torch.testing.assert_close(result.t2v, expected["final_t2v"], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.v2t, expected["final_v2t"], atol=1e-5, rtol=0)


class Recorded:
    """Noise of a recorded case, a row for each query."""

    def __init__(self, given: dict[str, torch.Tensor]):
        self.given = given

    def draw(self, direction: str, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self.given[f"noise_{direction}"].numpy()[queries]


def test_a_query_gets_what_the_plain_chain_says(found: Ranking) -> None:
    text, frames, real = features()
    best = similarity().t2v[4].argsort(descending=True)[:6]
    start = torch.from_numpy(noise().draw("t2v", np.array([4]), best[None].numpy()))

    seen = denoisers()[0].look(text[4:5], frames[best], real[best])
    x = sample(denoisers()[0], schedule("cosine", 10), start, text[4:5, None], seen)

    expected = similarity().t2v[4].clone()
    expected[best] += 0.5 * (2.0 * x[0]).softmax(0)
    torch.testing.assert_close(found.t2v[4], expected, atol=1e-5, rtol=0)


def test_only_the_best_candidates_change_and_none_falls_below_the_others(found: Ranking) -> None:
    plain = similarity().v2t

    changed = found.v2t != plain

    assert (changed.sum(1) == 8).all()
    assert (
        torch.where(changed, found.v2t, torch.inf).amin(1)
        >= torch.where(changed, -torch.inf, plain).amax(1)
    ).all()


def test_a_query_ranks_alike_whatever_else_is_ranked(found: Ranking) -> None:
    how = Fusion(noise(), t2v_rows=np.array([22, 3]), v2t_rows=np.array([16]))

    alone = rerank(how)

    torch.testing.assert_close(alone.t2v[[22, 3]], found.t2v[[22, 3]], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.v2t[16], found.v2t[16], atol=1e-6, rtol=0)
    assert (alone.t2v[0] == similarity().t2v[0]).all()


def test_two_processes_give_the_very_bytes_of_one(found: Ranking, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.models.diffusion_ret.reranking_worker",
        str(tmp_path / "two.npz"),
        str(tmp_path / "store"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), "2"], cwd=ROOT, env=environment) for rank in range(2)
    ]

    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]

    two = np.load(tmp_path / "two.npz")
    assert (two["t2v"] == found.t2v.numpy()).all() and (two["v2t"] == found.v2t.numpy()).all()


def test_the_same_seed_gives_the_same_scores_and_another_one_others(found: Ranking) -> None:
    again, other = (rerank(Fusion(noise(seed))) for seed in (0, 1))

    assert (again.t2v == found.t2v).all() and (again.v2t == found.v2t).all()
    assert not torch.allclose(other.t2v, found.t2v, atol=1e-4)


@pytest.mark.parametrize(("n_texts", "n_videos"), [(1, 1), (3, 2), (2, 17), (23, 1)])
def test_a_gallery_smaller_than_the_candidates_is_taken_as_a_whole(
    n_texts: int, n_videos: int
) -> None:
    plain, few = similarity(n_texts, n_videos), features(n_texts, n_videos)

    result = rerank(Fusion(noise()), plain, few, SamplingSettings(diffusion_steps=5))

    assert ((result.t2v != plain.t2v).sum(1) == n_videos).all()
    torch.testing.assert_close(
        (result.v2t - plain.v2t).sum(1), torch.ones(n_videos)
    )  # a softmax over all of them


def test_one_pair_is_certain() -> None:
    result = rerank(Fusion(noise()), similarity(1, 1), features(1, 1))

    assert result.v2t.item() == pytest.approx(similarity(1, 1).v2t.item() + 1)


def test_equal_scores_are_taken_from_the_first() -> None:
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.5]])

    assert best_candidates(scores, 4).tolist() == [[1, 3, 0, 2]]


def test_noise_belongs_to_the_pair_so_moving_the_gallery_moves_the_scores(found: Ranking) -> None:
    order = torch.randperm(N_VIDEOS)
    text, frames, real = features()
    moved = replace(noise(), video=noise().video[order.numpy()])
    plain = Ranking(similarity().t2v[:, order], similarity().v2t[order])

    result = rerank(Fusion(moved), plain, Features(text, frames[order], real[order]))

    torch.testing.assert_close(result.t2v, found.t2v[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.v2t, found.v2t[order], atol=1e-5, rtol=0)


def test_fewer_steps_are_another_sample_of_the_same_denoiser(found: Ranking) -> None:
    result = rerank(Fusion(noise()), settings=replace(SAMPLING, steps=3))

    assert (result.t2v != found.t2v).any() and result.t2v.isfinite().all()


def test_sample_names_candidates_best_first() -> None:
    rows = torch.tensor([2, 0])

    stage = DenoisingStage(*denoisers(), SAMPLING)
    result = stage.sample("t2v", similarity().t2v, rows, features(), Fusion(noise()))

    assert (result.candidates == similarity().t2v[rows].argsort(descending=True)[:, :6]).all()
    assert result.x.abs().max() <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 11}, "11 sampling steps of a schedule of 10"),
        ({"schedule": "linear"}, "linear schedule with 10 diffusion steps"),
    ],
)
def test_a_plan_that_the_schedule_has_not_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        rerank(Fusion(noise()), settings=replace(SAMPLING, **changes))


def test_features_of_another_width_are_refused_with_both() -> None:
    text, frames, real = features()

    with pytest.raises(Mismatch, match=f"sentences of width 7 for a denoiser of width {D}"):
        rerank(Fusion(noise()), seen=Features(text[:, :7], frames, real))


def test_sampling_without_noise_is_refused() -> None:
    with pytest.raises(Mismatch, match="without a source of noise"):
        rerank(Fusion())


def test_multi_caption_matrices_need_not_be_square(found: Ranking) -> None:
    assert found.t2v.shape == (N_TEXTS, N_VIDEOS) and found.v2t.shape == (N_VIDEOS, N_TEXTS)
