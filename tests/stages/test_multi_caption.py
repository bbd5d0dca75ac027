"""Several captions per video, from annotation files to metrics, against plain loops over the
scores.
"""

import json

import numpy as np
import pytest

from pipeline import config
from pipeline.core.execute import Selection, run_pipeline
from pipeline.core.plan import Pipeline
from pipeline.core.todo import Settings
from pipeline.datasets import base
from tests.datasets.layouts import write
from tests.videos import Film
from tests.videos import write as film

TRAIN, VAL, TEST = (3, 2, 4), (2, 1), (1, 5, 2, 3, 1)  # captions of each video
WORDS = ("red", "dog", "runs", "cat", "sleeps", "sea", "car", "fast")
YAML = """
datasets: {{mini: {{type: msvd, root: {root}}}}}
recipes:
  smallest:
    model: dual_encoding
    options:
      latent_dim: 8
      video: {{rnn: 4, kernels: [2], channels: 4}}
      text: {{rnn: 4, kernels: [2], channels: 4}}
    train: {{epochs: 1, batch_size: 4, optimizer: {{name: adam, lr: 1.0e-3}}}}
pipelines:
  mini:
    dataset: mini
    steps:
      compress: {{fps: 3, short_side: 32}}
      features: {{networks: [tiny-random], every: 0.5}}
      vocab: {{min_count: 1}}
      tags: {{size: 8, vocab_min_count: 1, min_count: 1}}
      word2vec: {{random: 8}}
      tensors: {{features: {{}}}}
      train: {{recipe: smallest}}
      evaluate: {{v2t: groups, t2v_median: lower, save_similarity: true}}
      evaluate@captions: {{in: train, v2t: captions, save_similarity: true}}
"""


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A data set in MSVD's layout with its videos, run from end to end."""
    root = tmp_path_factory.mktemp("mini")
    captions: dict[str, list[str]] = {}
    for split, counts in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        ids = [f"-{split}{n}_0_5" for n in range(len(counts))]
        write(root / f"{split}_list.txt", "\n".join(ids))
        for n, (video_id, count) in enumerate(zip(ids, counts, strict=True)):
            captions[video_id] = [
                f"a {WORDS[(n + m) % 8]} {WORDS[(3 * n + 5 * m) % 8]}" for m in range(count)
            ]
            film(
                root / "videos" / f"{video_id}.mp4",
                Film(frames=12 + 5 * n, fps=10, noise=40 + 30 * n),
            )
    write(root / "raw-captions.json", captions)
    write(root / "own.yaml", YAML.format(root=root))
    pipeline = Pipeline.open(config.load(root / "own.yaml"), "mini", root / "work")
    run_pipeline(pipeline, Selection(), Settings(jobs=1))
    return pipeline


def metrics_and_scores(mini: Pipeline, step: str) -> tuple[dict, np.ndarray, np.ndarray]:
    folder = mini.steps[step].out / "train"
    metrics = json.loads((folder / "metrics.json").read_text())["results"]["none"]
    return metrics, np.load(folder / "none.t2v.npy"), np.load(folder / "none.v2t.npy")


def owners(mini: Pipeline) -> list[int]:
    """Gallery column of each caption, worked out from the files alone."""
    return [video for video, count in enumerate(TEST) for _ in range(count)]


def worst_rank(scores: list[float], true: int) -> int:
    """Place from 0 of an item when those that tie with it go before it."""
    return sum(score >= scores[true] for n, score in enumerate(scores) if n != true)


def expected(ranks: list[int], lower: bool) -> dict[str, float]:
    n, ordered = len(ranks), sorted(ranks)
    middle = ordered[(n - 1) // 2] if lower else (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    recall = {f"R{k}": 100 * sum(rank < k for rank in ranks) / n for k in (1, 5, 10, 50)}
    return recall | {"MdR": middle + 1, "MnR": sum(ranks) / n + 1, "n": n}


def test_gallery_has_each_video_once_and_every_caption_is_a_query(mini: Pipeline) -> None:
    annotations = base.load(mini.artefact("dataset", "annotations"))

    _, t2v, v2t = metrics_and_scores(mini, "evaluate")

    assert t2v.shape == v2t.T.shape == (sum(TEST), len(TEST)) == (12, 5)
    assert annotations.targets("test").tolist() == owners(mini)


def test_text_to_video_ranks_every_caption_with_the_lower_median(mini: Pipeline) -> None:
    metrics, t2v, _ = metrics_and_scores(mini, "evaluate")

    ranks = [worst_rank(list(row), true) for row, true in zip(t2v, owners(mini), strict=True)]

    assert metrics["t2v"] == pytest.approx(metrics["t2v"] | expected(ranks, lower=True))


def test_video_to_text_ranks_groups_by_their_best_caption(mini: Pipeline) -> None:
    metrics, _, v2t = metrics_and_scores(mini, "evaluate")

    ranks = []
    for video, row in enumerate(v2t):
        best = [
            max(s for s, owner in zip(row, owners(mini), strict=True) if owner == g)
            for g in range(len(TEST))
        ]
        ranks.append(worst_rank(best, video))

    assert metrics["v2t"] == pytest.approx(metrics["v2t"] | expected(ranks, lower=False))


def test_video_to_text_over_all_captions_ranks_the_best_own_one(mini: Pipeline) -> None:
    metrics, _, v2t = metrics_and_scores(mini, "evaluate@captions")

    ranks = []
    for video, row in enumerate(v2t):
        own = max(s for s, owner in zip(row, owners(mini), strict=True) if owner == video)
        ranks.append(
            sum(s >= own for s, owner in zip(row, owners(mini), strict=True) if owner != video)
        )

    assert metrics["v2t"] == pytest.approx(metrics["v2t"] | expected(ranks, lower=False))
