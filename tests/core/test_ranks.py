"""Processes beside the first: what they are, and that they leave locks, journals and manifests
alone.
"""

import pytest

from pipeline.core import ranks
from pipeline.core.runner import Settings, run
from tests.core import toy


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, (0, 1)),
    ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
    ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
    ({"RANK": "1"}, (0, 1)),
])  # fmt: skip
def test_rank_and_size_are_those_of_the_environment(monkeypatch, environment, expected):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert (ranks.rank(), ranks.size()) == expected


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


def stage(folder, kind, ranks: str) -> toy.FileStage:
    made = kind(toy.Options(count=3), {}, folder)
    made.ranks = ranks
    return made


def test_second_process_does_the_items_and_keeps_no_books(tmp_path, second_of_two):
    assert run(stage(tmp_path, toy.FileStage, "all"), "numbers", Settings(jobs=1)) == {}

    assert sorted(p.name for p in tmp_path.iterdir()) == ["n000.json", "n001.json", "n002.json"]


def test_second_process_leaves_a_stage_that_is_not_shared_to_the_first(tmp_path, second_of_two):
    assert run(stage(tmp_path / "a", toy.FileStage, "first"), "numbers", Settings(jobs=1)) == {}

    assert not (tmp_path / "a").exists()


def test_second_process_skips_what_the_first_has_in_its_journal(tmp_path, monkeypatch):
    done = stage(tmp_path, toy.FileStage, "all")
    run(done, "numbers", Settings(jobs=1))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    processed = []
    monkeypatch.setattr(toy.FileStage, "process", lambda self, item: processed.append(item.id))

    run(stage(tmp_path, toy.FileStage, "all"), "numbers", Settings(jobs=1))
    run(stage(tmp_path, toy.FileStage, "all"), "numbers", Settings(jobs=1, force=True))

    assert processed == ["n000", "n001", "n002"]
