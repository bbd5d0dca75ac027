"""The evaluate step: what it writes, equal bytes, and what it does with checkpoints that cannot be
used.
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.core import runner
from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.core.todo import Settings
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import results
from pipeline.evaluation.speed import read_speed
from pipeline.stages.evaluate import Options, Stage
from pipeline.stores.big_file.writer import BigFileWriter
from tests.evaluation.world import evaluate, world


def files(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and "_state" not in p.parts]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def with_checkpoint(path: Path, step: str) -> dict:
    return world().inputs | {
        "checkpoints": [
            *world().inputs["checkpoints"],
            Artefact("checkpoint", path, "f", "c", step),
        ]
    }


def test_a_trained_model_is_better_than_chance(tmp_path: Path) -> None:
    summary = evaluate(tmp_path / "out")["summary"]["train"]["none"]

    assert summary["t2v_R1"] > 5 * 100 / 16
    assert summary["v2t_R1"] > 5 * 100 / 16


def test_every_way_of_ranking_is_in_the_metrics(tmp_path: Path) -> None:
    evaluate(tmp_path, rerank=["none", "dsl", "qbnorm"])

    metrics = results.read_metrics(tmp_path / "train")

    assert list(metrics["results"]) == ["none", "dsl", "qbnorm"]
    assert metrics["results"]["qbnorm"]["bank_texts"] == 96
    assert metrics["attributes"]["none"]["colour"]["n"] == 32
    assert len(metrics["examples"]["best"]) == 6
    ranks = results.read_ranks(tmp_path / "train", "none")["t2v"]
    assert metrics["results"]["none"]["t2v"]["mAP"] == pytest.approx(np.mean(1 / ranks))
    assert 0 < metrics["results"]["none"]["v2t"]["mAP"] <= 1


def test_the_ten_heaviest_concepts_of_every_video_are_listed(tmp_path: Path) -> None:
    evaluate(tmp_path)

    lines = (tmp_path / "train" / results.CONCEPTS).read_text().splitlines()
    gallery = results.read_gallery(tmp_path / "train")

    assert [line.split("\t")[0] for line in lines] == gallery.video_ids
    for line in lines:
        weights = [float(part.rpartition(":")[2]) for part in line.split("\t")[1].split()]
        assert len(weights) == 10
        assert weights == sorted(weights, reverse=True)


def test_the_table_has_a_row_for_every_way_of_ranking(tmp_path: Path) -> None:
    evaluate(tmp_path, rerank=["none", "dsl"])

    lines = results.table(tmp_path).splitlines()

    assert [line.split()[0] for line in lines[1:5]] == ["checkpoint", "train", "dsl", "chance"]
    assert "32 texts, 16 videos of test; ties pessimistic" in lines[5]


def test_saved_ranks_and_scores_agree_with_the_metrics(tmp_path: Path) -> None:
    evaluate(tmp_path, save_similarity=True)

    ranks = results.read_ranks(tmp_path / "train", "none")["t2v"]
    scores = np.load(tmp_path / "train" / "none.t2v.npy")
    values = results.read_metrics(tmp_path / "train")["results"]["none"]["t2v"]

    assert 100 * np.mean(ranks == 1) == values["R1"]
    assert scores.shape == (32, 16)


def test_two_evaluations_give_equal_bytes(tmp_path: Path) -> None:
    evaluate(tmp_path / "a", rerank=["none", "qbnorm"], save_similarity=True)
    evaluate(tmp_path / "b", rerank=["none", "qbnorm"], save_similarity=True)

    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_speed_is_measured_beside_the_results_and_changes_no_byte(tmp_path: Path) -> None:
    evaluate(tmp_path / "a")
    evaluate(tmp_path / "b", speed_passes=2)

    once, repeated = (read_speed(tmp_path / side, "train") for side in "ab")

    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (once.passes, repeated.passes) == (1, 2)
    assert once.videos == repeated.videos == 16
    assert repeated.video_seconds > 0 < repeated.ms_per_query
    assert "a second" in repeated.words and repeated.peak_gpu_bytes is None


def test_ties_are_counted_as_the_recipe_says_unless_the_option_does(tmp_path: Path) -> None:
    archive = read_archive(world().folder / "train" / "checkpoints" / "best.pt")
    train = archive["recipe"]["train"]
    train["evaluation"] = train["evaluation"] | {"ties": "expanded"}
    write_archive(tmp_path / "best.pt", archive)
    inputs = with_checkpoint(tmp_path / "best.pt", "published")

    evaluate(tmp_path / "out", inputs)

    lines = results.table(tmp_path / "out")
    policy = results.read_metrics(tmp_path / "out" / "published")["results"]["none"]["tie_policy"]
    assert policy == "expanded"
    assert "ties pessimistic, expanded;" in lines


def test_batch_size_is_not_part_of_the_result(tmp_path: Path) -> None:
    first = evaluate(tmp_path / "a")["fingerprint"]

    assert evaluate(tmp_path / "b", batch_size=3)["fingerprint"] == first


def test_captions_in_published_chunks_give_the_same_ranks_with_masked_pooling(
    tmp_path: Path,
) -> None:
    evaluate(tmp_path / "a")
    evaluate(tmp_path / "b", chunk=5)

    ranks = [results.read_ranks(tmp_path / side / "train", "none")["t2v"].tolist() for side in "ab"]

    assert ranks[0] == ranks[1]


def test_two_checkpoints_of_one_name_get_two_folders(tmp_path: Path) -> None:
    path = world().folder / "train" / "checkpoints" / "best.pt"
    twice = world().inputs | {
        "checkpoints": [Artefact("checkpoint", p) for p in (path, world().folder / "train")]
    }

    assert sorted(evaluate(tmp_path, twice)["summary"]) == ["best", "train"]


def test_an_unusable_checkpoint_among_others_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    stage = Stage(Options(), with_checkpoint(tmp_path / "bad.pt", "broken"), tmp_path / "out")

    manifest = runner.run(stage, settings=Settings(jobs=1, max_failures=1.0))

    assert manifest["counts"] == {"ok": 1, "damaged": 0, "failed": 1}
    assert "train" in manifest["summary"]


def test_the_only_checkpoint_being_unusable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    inputs = world().inputs | {"checkpoints": [Artefact("checkpoint", tmp_path / "bad.pt")]}

    with pytest.raises(DataError, match="not a readable checkpoint"):
        evaluate(tmp_path / "out", inputs)


def test_weights_that_are_not_finite_are_reported_as_scores_that_are_not(tmp_path: Path) -> None:
    value = read_archive(world().folder / "train" / "checkpoints" / "best.pt")
    value["weights"]["latent.video.linear.weight"][0] = torch.nan
    write_archive(tmp_path / "nan.pt", value)
    stage = Stage(Options(), with_checkpoint(tmp_path / "nan.pt", "nan"), tmp_path / "out")

    runner.run(stage, settings=Settings(jobs=1, max_failures=1.0))

    failure = json.loads((tmp_path / "out" / "_state" / "failed" / "nan.json").read_text())
    assert failure["reason"] == "not_finite"


def test_features_of_another_size_are_refused(tmp_path: Path) -> None:
    with BigFileWriter(tmp_path / "features", 3) as writer:
        writer.append("demo_test_0001", ["demo_test_0001_0"], np.ones((1, 3), np.float32))
        writer.finish(writer.videos)
    features = dataclasses.replace(world().inputs["features"], path=tmp_path / "features")

    with pytest.raises(DataError, match="3 numbers per frame"):
        evaluate(tmp_path / "out", world().inputs | {"features": features})


def test_a_bank_of_the_ranked_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="query bank"):
        evaluate(tmp_path, rerank=["qbnorm"], bank={"split": "test"})


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'tset'"):
        evaluate(tmp_path, split="tset")


def own(root: Path, split: list[tuple[str, str]]) -> dict:
    """The inputs of the world with videos and captions of a folder of one's own."""
    root.mkdir(exist_ok=True)
    for video_id, _ in split:
        (root / f"{video_id}.mp4").write_bytes(b"x")
    lines = [f"{video_id},{text},test" for video_id, text in split]
    (root / "captions.csv").write_text("\n".join(["video,caption,split", *lines]) + "\n")
    spec = {"type": "folder", "root": str(root)}
    return world().inputs | {"annotations": dataset_artefact(spec, "annotations")}


def test_what_is_added_or_changed_is_encoded_and_the_bytes_are_those_of_a_fresh_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = world().annotations
    split = [(c.video_id, c.text) for c in annotations.texts("test")]
    missing = annotations.split("test").video_ids[5]
    evaluate(tmp_path / "grown", own(tmp_path / "set", [s for s in split if s[0] != missing]))
    before = {p.name for p in (tmp_path / "grown/_state/encodings").rglob("*.npz")}
    split[0] = (split[0][0], "a red circle jumps")
    caplog.set_level("INFO", "tvrkit")

    evaluate(tmp_path / "grown", own(tmp_path / "set", split))
    said = caplog.text
    evaluate(tmp_path / "fresh", own(tmp_path / "set", split))

    videos, texts = map(int, re.findall(r"(\d+) of 16 videos and (\d+) captions encoded", said)[0])
    after = {p.name for p in (tmp_path / "grown/_state/encodings").rglob("*.npz")}
    fresh = {p.name for p in (tmp_path / "fresh/_state/encodings").rglob("*.npz")}
    assert (videos, texts) <= (8, 24)
    assert files(tmp_path / "grown") == files(tmp_path / "fresh")
    assert before - after and after == fresh


def test_a_kept_encoding_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    evaluate(tmp_path / "out")
    whole = files(tmp_path / "out")
    for path in (tmp_path / "out" / "_state" / "encodings").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-100])

    evaluate(tmp_path / "out", rerank=["none", "dsl"])
    evaluate(tmp_path / "out")

    assert files(tmp_path / "out") == whole
