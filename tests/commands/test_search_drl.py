"""Sentence search and word-frame pictures of a token-wise model: search and explain."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from pipeline.checkpoints import model_file
from pipeline.errors import DataError
from pipeline.evaluation import results
from pipeline.text.clip_bpe import find_table
from tests.evaluation.drl_world import TEXTS, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")
    return make(tmp_path_factory.mktemp("drl"))


def run(
    capsys: pytest.CaptureFixture, command: str, made: tuple[Path, Path], *arguments: object
) -> tuple[int, str, str]:
    code = cli.main([command, str(made[0]), "--videos", str(made[1]), *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def type_in(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))


def scores(made: tuple[Path, Path]) -> np.ndarray:
    model, _ = model_file.load_model(made[0])
    text, video = (
        {name: torch.from_numpy(rows) for name, rows in results.read_vectors(made[1])[side].items()}
        for side in ("text", "video")
    )
    with torch.inference_mode():
        return model.score(text, video)["similarity"].numpy()


def test_a_typed_caption_scores_as_the_evaluated_one(made, capsys) -> None:
    _, out, _ = run(capsys, "search", made, TEXTS[1].upper(), "--json")

    found = {hit["video"]: hit["score"] for hit in json.loads(out)["results"]}
    assert [found[f"clip{n}"] for n in range(4)] == pytest.approx(scores(made)[1], abs=1e-6)


def test_a_query_by_index_names_its_own_video_and_writes_the_forks_record(
    made, capsys, tmp_path
) -> None:
    _, out, _ = run(
        capsys,
        "search",
        made,
        "--index",
        2,
        "--top",
        1,
        "--records",
        tmp_path / "r.json",
        "--paths",
        "v/{}.mp4",
        "--json",
    )

    ranked = [f"v/clip{n}.mp4" for n in np.argsort(-scores(made)[2], kind="stable")]
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "text": TEXTS[2], "video": "v/clip2.mp4", "video_path_list": ranked,
    }  # fmt: skip
    assert (json.loads(out)["video"], len(json.loads(out)["results"])) == ("clip2", 1)


def test_records_alone_are_those_of_all_sentences(made, capsys, tmp_path) -> None:
    run(capsys, "search", made, "--records", tmp_path / "all.json")

    found = json.loads((tmp_path / "all.json").read_text())
    assert list(found) == ["0", "1", "2", "3"]
    assert [record["video"] for record in found.values()] == ["clip0", "clip1", "clip2", "clip3"]
    assert sorted(found["3"]["video_path_list"]) == ["clip0", "clip1", "clip2", "clip3"]


def test_a_free_sentence_has_no_video_of_its_own(made, capsys, tmp_path) -> None:
    run(capsys, "search", made, "anything", "--records", tmp_path / "r.json")

    assert json.loads((tmp_path / "r.json").read_text())["video"] is None


def test_the_prompt_takes_sentences_and_the_forks_dialogue_until_q(
    made, capsys, monkeypatch
) -> None:
    type_in(monkeypatch, "t a dog\ni 3\ni 9\nwhat\nt\na cat\ni\n2\nq\n")

    code, out, err = run(capsys, "search", made, "--prompt", "--top", 2, "--paths", "v/{}.mp4")

    assert code == 0
    assert out.count("rank    score") == 5 and "(of clip3)" in out and "(of clip2)" in out
    assert out.count(".mp4") == 10 and "v/clip" in out
    assert "there is no sentence 9" in err and "a sentence; t or i" in err


def test_the_prompt_answers_programs_and_keeps_records(made, capsys, monkeypatch, tmp_path) -> None:
    type_in(monkeypatch, "a dog\n\ni\n2\nq\n")
    asked = ("--prompt", "--top", 2, "--json", "--records", tmp_path / "r.json")

    code, out, _ = run(capsys, "search", made, *asked)

    answers = [json.loads(line) for line in out.splitlines()]
    records = json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    assert [answer["query"] for answer in answers] == ["a dog", TEXTS[2]]
    assert [len(answer["results"]) for answer in answers] == [2, 2]
    assert [records[n]["video"] for n in ("0", "1")] == [None, "clip2"]
    assert all(len(record["video_path_list"]) == 4 for record in records.values())


def test_an_index_beyond_the_split_says_what_there_is(made, capsys) -> None:
    code, _, err = run(capsys, "search", made, "--index", 4)

    assert code == 2 and "Give 0 to 3" in err


def test_words_and_frames_add_up_to_the_score(made, capsys) -> None:
    code, out, _ = run(capsys, "explain", made, "--text", TEXTS[0], "--video", "clip2", "--json")

    found = json.loads(out)
    assert code == 0
    assert found["score"] == pytest.approx(scores(made)[0, 2], abs=1e-6)
    assert [row["word"] for row in found["words"]] == ["[CLS]", *TEXTS[0].split(), "[SEP]"]
    assert [row["frame"] for row in found["frames"]] == [0, 1]
    assert sum(row["weight"] for row in found["words"]) == pytest.approx(1, abs=1e-3)


def test_pieces_of_a_word_stand_behind_it(made, capsys) -> None:
    _, out, _ = run(capsys, "explain", made, "--text", TEXTS[3], "--video", "clip0", "--json")

    words = [row["word"] for row in json.loads(out)["words"]]
    at = words.index("supercalifragilistic")
    assert words[at + 1] == "+" and words[-2:] == ["way", "[SEP]"]


def test_the_picture_is_drawn_twice_the_same(made, capsys, tmp_path) -> None:
    pictures = []
    for name in ("a.png", "b.png"):
        code, _, _ = run(
            capsys,
            "explain",
            made,
            "--text",
            TEXTS[0],
            "--video",
            "clip0",
            "--out",
            tmp_path / name,
        )
        pictures.append((tmp_path / name).read_bytes())

    assert code == 0 and pictures[0] == pictures[1]
    assert min(Image.open(tmp_path / "a.png").size) > 400


def test_words_need_a_text_and_a_video(made, capsys) -> None:
    code, _, err = run(capsys, "explain", made, "--text", "a dog")

    assert code == 2 and "Give --text and --video" in err


def test_a_model_without_words_says_which_one_to_explain(made, tmp_path, capsys) -> None:
    other = make(tmp_path, interaction="dp")

    code, _, err = run(capsys, "explain", other, "--text", "a dog", "--video", "clip0")

    assert code == 2 and "interaction ti or wti" in err
