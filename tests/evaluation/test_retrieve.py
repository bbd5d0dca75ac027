"""Encode, score in blocks, fuse over everything, re-rank: the same whatever the batches and blocks
are.
"""

import numpy as np
import pytest
import torch

from pipeline.checkpoints import model_file
from pipeline.errors import DataError
from pipeline.evaluation.encode import distinct, encode_corpus
from pipeline.evaluation.retrieve import (
    Encoded,
    RankSettings,
    block_shape,
    encode,
    rankings,
    retrieve,
    score,
)
from pipeline.text.sentences import Sentences
from tests.training import toy


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return model_file.build_model(toy.recipe(), toy.FACTS).eval()


@pytest.fixture(scope="module")
def encoded(model: torch.nn.Module) -> Encoded:
    return encode_corpus(model, toy.corpus())


def test_blocks_of_any_size_give_the_same_scores(model: torch.nn.Module, encoded: Encoded) -> None:
    whole = score(model, encoded.text, encoded.video)

    for budget in (1, 100, 1000, 5000):
        for name, part in score(model, encoded.text, encoded.video, budget).items():
            torch.testing.assert_close(
                part, whole[name], atol=1e-6, rtol=0
            )  # products of other shapes: last bit


def test_fusion_sees_the_whole_matrix(model: torch.nn.Module, encoded: Encoded) -> None:
    raw = score(model, encoded.text, encoded.video)

    t2v, v2t = rankings(model, encoded, budget=100)
    expected = (
        model.fuse(raw, encoded.text, encoded.video).t2v[encoded.row_of_text].detach().numpy()
    )

    np.testing.assert_allclose(t2v, expected, atol=1e-5)
    assert (v2t == t2v.T).all()


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_of_any_size_give_the_same_encodings(
    model: torch.nn.Module, encoded: Encoded, batch_size: int
) -> None:
    other = encode_corpus(model, toy.corpus(), batch_size)

    for side in ("text", "video"):
        for name, rows in getattr(encoded, side).items():
            torch.testing.assert_close(getattr(other, side)[name], rows, atol=1e-5, rtol=0)


def test_chunks_in_file_order_encode_every_caption(
    model: torch.nn.Module, encoded: Encoded
) -> None:
    chunked = encode_corpus(model, toy.corpus(), chunk=7)

    assert len(chunked.text["latent"]) == 50
    np.testing.assert_allclose(rankings(model, chunked)[0], rankings(model, encoded)[0], atol=1e-5)


def test_equal_captions_share_a_row_and_tie_exactly(model: torch.nn.Module) -> None:
    corpus = toy.corpus()
    texts = Sentences([[5, 6, 7], [8, 9], [5, 6, 7], [8, 9, 9]] * 10 + [[4]] * 10)
    same = type(corpus)(
        corpus.caption_ids, corpus.video_ids, corpus.video_of, texts, corpus.videos, corpus.tags
    )

    encoded = encode_corpus(model, same, batch_size=2)
    t2v, _ = rankings(model, encoded)

    assert len(encoded.text["latent"]) == 4
    assert (t2v[0] == t2v[2]).all()
    assert distinct(texts)[0].tolist() == [0, 1, 3, 40]


def test_every_way_of_ranking_has_its_name_and_settings(
    model: torch.nn.Module, encoded: Encoded
) -> None:
    bank = Encoded(encoded.text, encoded.video, np.arange(len(encoded.text["latent"])))

    found = retrieve(
        model, encoded, toy.corpus().video_of, RankSettings(("none", "dsl", "qbnorm"), bank=bank)
    )

    assert list(found) == ["none", "dsl", "qbnorm"]
    assert found["dsl"].metrics["dsl_scale"] == 100.0
    assert found["qbnorm"].metrics["bank_videos"] == 20
    assert found["none"].metrics["t2v"]["n"] == 50


def test_query_bank_must_be_given(model: torch.nn.Module, encoded: Encoded) -> None:
    with pytest.raises(DataError, match="needs a bank"):
        retrieve(model, encoded, toy.corpus().video_of, RankSettings(("qbnorm",)))


def test_a_vector_that_is_not_finite_stops_the_evaluation(
    model: torch.nn.Module, encoded: Encoded
) -> None:
    broken = {name: rows.clone() for name, rows in encoded.video.items()}
    broken["latent"][3] = float("nan")

    with pytest.raises(DataError, match="NaN"):
        rankings(model, Encoded(encoded.text, broken, encoded.row_of_text))


def test_items_that_were_not_delivered_are_missed(model: torch.nn.Module) -> None:
    corpus = toy.corpus()
    batches = [(range(10), corpus.texts.batch(np.arange(10)))]

    with pytest.raises(DataError, match="10 items were delivered for 50"):
        encode(model.encode_text, batches, {}, 50)


@pytest.mark.parametrize(
    ("n_t", "n_v", "pairs"),
    [(1000, 1000, 10**9), (1000, 1000, 100), (5, 10**6, 1000), (10**6, 5, 1000), (7, 7, 1)],
)
def test_blocks_keep_to_the_budget(n_t: int, n_v: int, pairs: int) -> None:
    rows, columns = block_shape(n_t, n_v, pair_bytes=8, budget=8 * pairs)

    assert 1 <= rows <= n_t
    assert 1 <= columns <= n_v
    assert rows * columns <= pairs
