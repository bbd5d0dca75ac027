import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.text import tag_files
from pipeline.text.tags import TagCounts

COUNTS = TagCounts(
    Counter({"dog": 6, "run": 4, "man": 6, "big": 1}),
    {
        "v1": Counter({"run": 2, "dog": 5, "big": 1}),
        "v2": Counter({"man": 6, "dog": 1, "run": 2}),
        "v3": Counter(),
    },
)


def write(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_files_have_the_published_form() -> None:
    texts = tag_files.files(*tag_files.annotate(COUNTS, size=2, vocab_min_count=2, min_count=2))

    assert texts["tag_vocab.json"] == '{\n  "dog": 0,\n  "man": 1\n}'
    assert texts["video_tag.txt"] == "v1\t{'dog': 5}\nv2\t{'man': 6}\nv3\t{}\n"


def test_tags_of_a_video_are_sorted_by_falling_count_ties_by_appearance() -> None:
    counts = TagCounts(Counter("abcd"), {"v": Counter({"a": 1, "b": 2, "c": 1, "d": 2})})

    _, videos = tag_files.annotate(counts, 9, 1, 1)

    assert list(videos["v"]) == ["b", "d", "a", "c"]


def test_labels_are_shares_of_the_largest_count_and_zeros_without_tags(tmp_path: Path) -> None:
    write(tmp_path, tag_files.files(*tag_files.annotate(COUNTS, 3, 1, 1)))

    labels = tag_files.load(tmp_path)

    assert labels.words == ["dog", "man", "run"]
    expected = np.array([[1 / 6, 1, 2 / 6], [1, 0, 2 / 5], [0, 0, 0]], dtype=np.float32)
    assert np.array_equal(labels.matrix(["v2", "v1", "v3"]), expected)


def test_hybrid_files_have_the_published_form_and_keep_all_tags_of_tgif_videos() -> None:
    counts = TagCounts(COUNTS.total, COUNTS.videos | {"tgif7": Counter({"cat": 1})})

    texts = tag_files.hybrid_files(*tag_files.annotate_hybrid(counts, 2, 2), 2, 2)

    assert (
        texts["video_label_th_1.txt"] == "v1\tdog:5 run:2 \nv2\tman:6 run:2 \nv3\t\ntgif7\tcat:1 \n"
    )
    assert texts["video_label_th_1/all_words.txt"] == "man 6\ndog 5\nrun 4\ncat 1"
    assert texts["video_label_th_1/tag_vocab_2.json"] == '["man", "dog"]'
    assert texts["video_label_th_1/tag_vocab_2.txt"] == "man\ndog"


def test_hybrid_labels_count_tags_outside_the_vocabulary_for_the_largest_count(
    tmp_path: Path,
) -> None:
    write(tmp_path, tag_files.hybrid_files(["run"], {"v1": {"dog": 4, "run": 1}}, 1, 2))

    assert tag_files.load(tmp_path).matrix(["v1"]).tolist() == [[0.25]]


def test_a_collection_of_hybrid_space_is_searched_for_its_tags(tmp_path: Path) -> None:
    folder = tmp_path / "TextData" / "tags"
    write(folder, tag_files.hybrid_files(["run"], {"v1": {"dog": 4, "run": 1}}, 1, 2))

    assert tag_files.load(tmp_path).matrix(["v1"]).tolist() == [[0.25]]


def test_a_video_that_the_file_does_not_mention_is_named(tmp_path: Path) -> None:
    write(tmp_path, tag_files.files(*tag_files.annotate(COUNTS, 3, 1, 1)))

    with pytest.raises(DataError, match="2 of 3 videos have no line: x, y"):
        tag_files.load(tmp_path).matrix(["x", "v1", "y"])


@pytest.mark.parametrize(
    "line",
    [
        "v1\t__import__('os').system('touch was-here')",
        "v1\t{'dog': __import__('os')}",
        "v1\t{'dog': 2, **globals()}",
        "v1\t{'dog': 2",
        "v1\t{'dog': -2}",
        "v1\t{'dog': 2 'man': 1}",
        "v1\t{dog: 2}",
        "v1\t[('dog', 2)]",
        "v1\t" + "{" * 5000,
        "v1 {'dog': 2}",
        "v1\t{'dog': 2}\nv1\t{'dog': 3}",
    ],
)
def test_a_tag_file_that_is_more_than_tags_and_counts_is_refused_and_not_run(
    tmp_path: Path, line: str
) -> None:
    write(tmp_path, {"tag_vocab.json": '{"dog": 0}', "video_tag.txt": line + "\n"})

    with pytest.raises(DataError, match=r"video_tag.txt:\d: .*Nothing in it was run"):
        tag_files.load(tmp_path)

    assert not Path("was-here").exists()


def test_tag_files_of_python_2_and_with_quotes_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"tag_vocab.json": json.dumps({"dog": 0, "o'clock": 1})})
    write(tmp_path, {"video_tag.txt": "v1\t{u'dog': 2, \"o'clock\": 1}\nv2\t{}\n"})

    assert tag_files.load(tmp_path).videos == {"v1": {"dog": 2, "o'clock": 1}, "v2": {}}


def test_tags_of_another_vocabulary_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"tag_vocab.json": '{"dog": 0}', "video_tag.txt": "v1\t{'cat': 2}\n"})

    with pytest.raises(DataError, match="1 tags are not in tag_vocab.json: cat"):
        tag_files.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"dog": 1}', '{"a": 0, "b": 0}', '["a", "a"]', '{"a": "0"}', "3", "[3]"]
)
def test_what_is_no_tag_vocabulary_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"tag_vocab.json": text, "video_tag.txt": "v1\t{}\n"})

    with pytest.raises(DataError, match="tag_vocab.json"):
        tag_files.load(tmp_path)


@pytest.mark.parametrize("text", ["v1\tdog\n", "v1\tdog:x \n", "v1\t:2 \n", "v1 dog:2 \n"])
def test_a_damaged_hybrid_file_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"video_label_th_1.txt": text, "video_label_th_1/tag_vocab_1.json": '["dog"]'})

    with pytest.raises(DataError, match="video_label_th_1.txt:1"):
        tag_files.load(tmp_path)


@pytest.mark.parametrize("name", ["video_tag.txt", "tag_vocab.json"])
def test_the_file_of_tags_is_as_good_as_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "video_tag.txt").write_text("a\t{'cat': 2}\n")
    (tmp_path / "tag_vocab.json").write_text('{"cat": 0}')

    found = tag_files.load(tmp_path / name)

    assert found.matrix(["a"]).tolist() == tag_files.load(tmp_path).matrix(["a"]).tolist()


def test_a_folder_without_tags_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video_tag.txt"):
        tag_files.load(tmp_path)


def test_recorded_labels_of_a_batch(golden: Path) -> None:
    case = golden / "dual-encoding" / "batching"
    if not case.exists():
        pytest.skip("../shared is not here")

    with np.load(case / "outputs.npz") as expected:
        labels = tag_files.load(case).matrix(expected["video_ids"].tolist())

        assert np.array_equal(labels, expected["tag_labels"])
