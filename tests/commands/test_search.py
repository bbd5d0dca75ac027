"""Search by a typed query, and by a video, with what evaluate saved."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.evaluation import results
from tests.evaluation.world import evaluate, world


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder: a trained step, and its results beside it."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copytree(world().folder / "train", folder / "train")
    evaluate(folder / "evaluate", save_similarity=True)
    return folder


def search(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["search", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_caption_as_query_ranks_as_in_the_evaluation(
    pipeline: Path, capsys: pytest.CaptureFixture
) -> None:
    gallery = results.read_gallery(pipeline / "evaluate" / "train")
    scores = np.load(pipeline / "evaluate" / "train" / "none.t2v.npy")[5]

    _, out, _ = search(
        capsys, pipeline / "train", gallery.texts[gallery.row_of_text[5]], "--top", 16, "--json"
    )

    found = json.loads(out)["results"]
    assert [hit["video"] for hit in found] == [gallery.video_ids[i] for i in np.argsort(-scores)]
    assert [hit["score"] for hit in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


def test_a_new_sentence_is_answered(pipeline: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = search(
        capsys, pipeline / "train" / "checkpoints" / "best.pt", "a big red star", "--top", 3
    )

    assert code == 0
    assert len(out.splitlines()) == 4


def test_unknown_words_are_named_and_the_rest_is_used(
    pipeline: Path, capsys: pytest.CaptureFixture
) -> None:
    _, out, _ = search(capsys, pipeline / "train", "a zorgblat red star", "--json")

    assert json.loads(out)["unknown_words"] == ["zorgblat"]


def test_the_prompt_names_unknown_words_and_goes_on_after_a_sentence_of_them(
    pipeline: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("zorgblat\na zorgblat red star\n"))

    code, out, err = search(capsys, pipeline / "train", "--prompt", "--top", 1)

    assert code == 0
    assert "the model does not know these words: zorgblat" in out and "none of its words" in err
    assert out.count("rank    score") == 1


def test_a_query_of_unknown_words_says_what_is_near(
    pipeline: Path, capsys: pytest.CaptureFixture
) -> None:
    code, _, err = search(capsys, pipeline / "train", "cirle zorgblat")

    assert code == 2
    assert "Did you mean: circle" in err


def test_captions_are_ranked_for_a_video_of_the_gallery(
    pipeline: Path, capsys: pytest.CaptureFixture
) -> None:
    _, out, _ = search(capsys, pipeline / "train", "--video", "demo_test_0001", "--json")

    assert len(json.loads(out)["results"]) == 10


def test_captions_are_ranked_for_a_video_with_features(
    pipeline: Path, capsys: pytest.CaptureFixture
) -> None:
    features = world().inputs["features"].path

    code, out, _ = search(
        capsys, pipeline / "train", "--video", "demo_train_0001", "--features", features, "--json"
    )

    assert code == 0
    assert json.loads(out)["results"][0]["rank"] == 1


def test_an_unknown_video_says_what_is_near(pipeline: Path, capsys: pytest.CaptureFixture) -> None:
    code, _, err = search(capsys, pipeline / "train", "--video", "demo_tset_0001")

    assert code == 4
    assert "demo_test_0001" in err


def test_no_encodings_says_how_to_make_them(capsys: pytest.CaptureFixture) -> None:
    code, _, err = search(capsys, world().folder / "train", "a red star")

    assert code == 4
    assert "cli.py evaluate" in err


def test_encodings_of_another_checkpoint_are_refused(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "best.pt"
    other.write_bytes((pipeline / "train" / "checkpoints" / "best.pt").read_bytes() + b"\0")

    code, _, err = search(capsys, other, "a red star", "--videos", pipeline / "evaluate")

    assert code == 4
    assert "another checkpoint" in err


def test_an_empty_query_is_refused(pipeline: Path, capsys: pytest.CaptureFixture) -> None:
    code, _, err = search(capsys, pipeline / "train", "  ", "--videos", pipeline / "evaluate")

    assert code == 2
    assert "an empty query" in err and "Write a sentence" in err


@pytest.mark.parametrize("arguments", [[], ["a red star", "--video", "demo_test_0001"]])
def test_query_and_video_exclude_each_other(
    pipeline: Path, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    assert search(capsys, pipeline / "train", *arguments)[0] == 2
