"""A query alone ranks as the evaluation ranked it, in its results and in an index, for every
system.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import RetrievalModel
from pipeline.search.question import Part
from pipeline.search.search import Searcher, of_index, of_results
from pipeline.stores.index.reader import SUMMARY, IndexStore
from pipeline.stores.index.writer import IndexWriter
from tests.search.asked import search_video
from tests.search.systems import SYSTEMS, TEXTS, System, make


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    return make(tmp_path_factory.mktemp(request.param), request.param)


def index_of(system: System, folder: Path, copies: int = 1) -> IndexStore:
    """An index of the system's videos, each `copies` times under names of its own."""
    model: RetrievalModel = system.model
    with torch.inference_mode():
        arrays = {} if model.summaries == "none" else {SUMMARY: model.summary(system.video)}
        arrays |= {} if model.summaries == "score" else system.video
    writer = IndexWriter(folder)
    for copy in range(copies):
        for n, video_id in enumerate(system.video_ids):
            own = {name: values[n : n + 1].numpy() for name, values in arrays.items()}
            name = video_id if not copy else f"{video_id}.{copy}"
            writer.append(name, f"{name}.mp4", np.array([[0, 2]], np.float32), own)
    writer.finish({"root": "/films", "checkpoint": {}, "statistics": system.statistics})
    return IndexStore.open(folder)


def test_a_typed_caption_scores_as_in_the_evaluation(system: System) -> None:
    searcher = Searcher(of_results(system.model, system.info, system.results), top=None)

    for row, text in enumerate(TEXTS):
        answers, _ = searcher.search([Part("words", text)])

        found = {answer.video_id: answer.score for answer in answers}
        assert [found[i] for i in system.video_ids] == pytest.approx(system.t2v[row], abs=1e-6)


def test_a_typed_caption_ranks_in_an_index_as_in_the_evaluation(
    system: System, tmp_path: Path
) -> None:
    store = index_of(system, tmp_path)
    searcher = Searcher(of_index(system.model, system.info, store), top=None)

    for row, text in enumerate(TEXTS):
        answers, _ = searcher.search([Part("words", text)])

        found = {answer.video_id: answer.score for answer in answers}
        # rows are float16: three digits
        assert [found[i] for i in system.video_ids] == pytest.approx(system.t2v[row], abs=8e-3)


def test_candidates_are_enough_to_find_the_best(system: System, tmp_path: Path) -> None:
    store = index_of(system, tmp_path, copies=300)
    asker = of_index(system.model, system.info, store)

    chosen, _ = Searcher(asker, top=5).search([Part("words", TEXTS[0])])
    all_of_them, _ = Searcher(asker, top=5, exact=True).search([Part("words", TEXTS[0])])

    assert chosen[0].score >= all_of_them[0].score - 0.02
    samples = system.model.second_stage is not None  # noise is a video's own
    assert all_of_them[0].tied >= (1 if samples else 300)


def test_a_known_video_finds_others_and_never_itself(system: System) -> None:
    searcher = Searcher(of_results(system.model, system.info, system.results), top=None)

    answers, _ = searcher.search([Part("video", "clip2")])

    assert sorted(a.video_id for a in answers) == [i for i in system.video_ids if i != "clip2"]


def test_captions_are_ranked_for_a_video(system: System) -> None:
    hits = search_video(system.model, system.results, "clip1", None, 3)

    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert {hit.label for hit in hits} <= set(TEXTS)


def test_weights_of_parts_add_up(system: System) -> None:
    searcher = Searcher(of_results(system.model, system.info, system.results), top=None)

    def scores(*parts: Part) -> np.ndarray:
        found = {a.video_id: a.score for a in searcher.search(list(parts))[0]}
        return np.array([found[i] for i in system.video_ids])

    mixed = scores(Part("words", TEXTS[0], 3.0), Part("words", TEXTS[1], -1.0))

    alone = [scores(Part("words", text)) for text in TEXTS[:2]]
    assert mixed == pytest.approx(0.75 * alone[0] - 0.25 * alone[1], abs=1e-5)
