"""MSR-VTT: both layouts, every split, and the counts of the published lists."""

import json
from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import DataError
from tests.datasets.layouts import msrvtt, write


def load(root: Path, **options: object):
    return open_dataset({"type": "msrvtt", "root": str(root), **options}).load()


def test_train_has_every_caption_in_file_order_and_test_its_own_sentences(tmp_path: Path) -> None:
    annotations = load(msrvtt(tmp_path, n=4))

    assert [c.text for c in annotations.texts("train")] == [
        "caption 0 of 0", "caption 1 of 0", "caption 0 of 1", "caption 1 of 1",
    ]  # fmt: skip
    assert [c.text for c in annotations.texts("test")] == ["a test of 2", "a test of 3"]
    assert annotations.split("val") == annotations.split("test")


def test_both_layouts_say_the_same_and_which_was_found(tmp_path: Path) -> None:
    msrvtt(tmp_path / "a")
    msrvtt(tmp_path / "b")
    sentences = json.loads((tmp_path / "b" / "MSRVTT_data.json").read_text())["sentences"]
    (tmp_path / "b" / "MSRVTT_data.json").unlink()
    entries = [{"image_id": s["video_id"], "caption": s["caption"]} for s in sentences]
    write(tmp_path / "b" / "MSR_VTT.json", {"annotations": entries})

    one, two = load(tmp_path / "a"), load(tmp_path / "b")

    assert (one.captions, one.splits) == (two.captions, two.splits)
    assert one.notes[0] == "MSRVTT_data.json: captions of MSR-VTT (sentences), 16 captions"
    assert two.notes[0] == "MSR_VTT.json: captions of MSR-VTT (annotations), 16 captions"


def test_sentences_of_the_fork_are_a_test_split(tmp_path: Path) -> None:
    msrvtt(tmp_path)
    write(tmp_path / "sentence_dict.json", {"0": ["video7", ["a test of 7", None, None]]})

    annotations = load(tmp_path, test="sentence_dict.json")

    assert [(c.video_id, c.text) for c in annotations.texts("test")] == [("video7", "a test of 7")]


@pytest.mark.parametrize(("captions", "count"), [("first", 2), ("all", 4)])
def test_1k_b_ranks_the_first_caption_or_all(tmp_path: Path, captions: str, count: int) -> None:
    msrvtt(tmp_path)
    write(tmp_path / "train_list_miech.txt", "video0\nvideo1")
    write(tmp_path / "test_list_miech.txt", "video6\nvideo7")

    assert len(load(tmp_path, split="1k-B", test_captions=captions).texts("test")) == count


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "MSRVTT_train.9k.csv",
            "video_id\nvideo0\nvideo77\n",
            "1 x id of a split that has no captions: 'video77'",
        ),
        (
            "MSRVTT_train.9k.csv",
            "video_id\nvideo0\nvideo0\n",
            r"twice: 'video0' \(MSRVTT_train.9k.csv:3\)",
        ),
        (
            "MSRVTT_train.9k.csv",
            "id\nvideo0\n",
            "no column video_id; its first line is: id\n.*another data set",
        ),
        (
            "MSRVTT_JSFUSION_test.csv",
            "key,video_id,sentence\nr,video6,a\nr,video7,b\n",
            "key that occurs twice",
        ),
        ("MSRVTT_JSFUSION_test.csv", "key,video_id,sentence\nr,../x,a\n", "'../x'"),
        (
            "MSRVTT_data.json",
            {"sentences": [{"caption": "a"}]},
            "1 x entry without video_id and caption",
        ),
        (
            "MSRVTT_data.json",
            {"sentences": [{"caption": 3, "video_id": "video0"}]},
            "caption that is no text: 3",
        ),
        ("MSRVTT_data.json", [{"video": "x.mp4", "description": "a"}], "holds captions of DiDeMo"),
    ],
)
def test_wrong_files_are_explained(
    tmp_path: Path, name: str, content: object, message: str
) -> None:
    write(msrvtt(tmp_path) / name, content)

    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_odd_but_valid_captions_are_kept_as_they_are(tmp_path: Path) -> None:
    texts = ["a &amp; b", "caf\u00e9 \U0001f600", "tab\there", "two\nlines", ""]
    write(msrvtt(tmp_path) / "MSRVTT_data.json", {"sentences": [
        {"caption": text, "video_id": f"video{i}"} for i in range(6) for text in texts
    ]})  # fmt: skip

    assert [c.text for c in load(tmp_path).texts("train")][:5] == texts


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published lists, with 20 made-up captions for each of the 10,000 videos."""
    root = tmp_path_factory.mktemp("msrvtt")
    for path in (shared / "data" / "annotations" / "msrvtt").iterdir():
        (root / path.name).symlink_to(path)
    sentences = [
        {"caption": "a b", "video_id": f"video{i}", "sen_id": m}
        for i in range(10_000)
        for m in range(20)
    ]
    write(root / "MSRVTT_data.json", {"sentences": sentences})
    return root


@pytest.mark.parametrize("split", ["9k", "7k", "full", "1k-B"])
def test_published_lists_give_the_published_counts(real: Path, split: str) -> None:
    dataset = open_dataset({"type": "msrvtt", "root": str(real), "split": split})

    annotations = dataset.load()

    counts = {
        name: (len(part.video_ids), len(part.caption_ids))
        for name, part in annotations.splits.items()
    }
    published = dataset.published_counts()
    assert {name: (v, published[name][1] and t) for name, (v, t) in counts.items()} == published


def test_1k_a_has_995_different_sentences_in_the_published_order(real: Path, shared: Path) -> None:
    texts = [c.text for c in load(real).texts("test")]
    fork = json.loads((shared / "data/annotations/msrvtt/drl_fork_sentence_dict.json").read_text())

    assert (len(texts), len(set(texts))) == (1000, 995)
    assert texts == [entry[1][0] for entry in fork.values()]


def test_the_two_files_of_the_challenge_stand_for_all_captions(tmp_path: Path) -> None:
    msrvtt(tmp_path)
    value = json.loads((tmp_path / "MSRVTT_data.json").read_text())
    before = load(tmp_path)
    (tmp_path / "MSRVTT_data.json").unlink()
    for name, part in (("train_val", value["sentences"][:10]), ("test", value["sentences"][10:])):
        write(tmp_path / f"{name}_videodatainfo.json", {"info": {}, "sentences": part})

    found = load(tmp_path)

    assert (found.captions, found.splits) == (before.captions, before.splits)


def test_who_only_ranks_needs_only_the_test_list(tmp_path: Path) -> None:
    msrvtt(tmp_path)
    whole = load(tmp_path).split("test")
    for name in ("MSRVTT_data.json", "MSRVTT_train.9k.csv"):
        (tmp_path / name).unlink()
    dataset = open_dataset({"type": "msrvtt", "root": str(tmp_path)})

    alone = dataset.load()

    assert (alone.split("test"), list(alone.splits)) == (whole, ["val", "test"])
    assert any("MSRVTT_train.9k.csv is not there: only the test" in n for n in alone.notes)
    assert dataset.digest()
    assert [f.status for f in dataset.expected_files()][:2] == ["missing", "missing"]
