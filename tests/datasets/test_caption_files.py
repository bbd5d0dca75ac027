from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.datasets.caption_files import Dataset, Options
from pipeline.errors import DataError

TRAIN = "v1#0 A man runs.\nv1#1 Someone is running\nv2#0 a dog\n"


def write(path: Path, text: str | bytes = TRAIN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(root: Path, **options: object):
    return Dataset(Options(root=root, **options)).load()


def test_a_collection_has_one_split_per_file(tmp_path: Path) -> None:
    write(tmp_path / "TextData" / "demotrain.caption.txt")
    write(tmp_path / "TextData" / "demotest.caption.txt", "v9#0 a cat\n")

    annotations = open_dataset({"type": "caption_files", "root": str(tmp_path)}).load()

    assert list(annotations.splits) == ["train", "test"]
    assert [c.text for c in annotations.texts("train")] == [
        "A man runs.",
        "Someone is running",
        "a dog",
    ]
    assert annotations.split("train").video_ids == ["v1", "v2"]
    assert list(annotations.videos) == ["v1", "v2", "v9"]
    assert annotations.targets("train").tolist() == [0, 0, 1]


def test_one_caption_file_is_one_split(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.txt")

    assert list(load(path).splits) == ["train"]
    assert list(load(path, split="test").splits) == ["test"]


def test_a_prefix_chooses_among_the_splits_of_msrvtt(tmp_path: Path) -> None:
    for name in ("msrvtt10k", "msrvtt10kmiech"):
        write(tmp_path / "TextData" / f"{name}train.caption.txt", f"{name}#0 a b\n")

    assert load(tmp_path, prefix="msrvtt10kmiech").split("train").video_ids == ["msrvtt10kmiech"]
    assert load(tmp_path, prefix="msrvtt10k").split("train").video_ids == ["msrvtt10k"]
    with pytest.raises(DataError, match="several caption files: msrvtt10kmiechtrain.*\n.*prefix"):
        load(tmp_path)


def test_files_can_be_named_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.txt")
    write(tmp_path / "b.txt", "v3#0 c\n")

    annotations = load(tmp_path, train="a/x.txt", val="b.txt")

    assert {name: split.video_ids for name, split in annotations.splits.items()} == {
        "train": ["v1", "v2"],
        "val": ["v3"],
    }


def test_scattered_captions_list_a_video_once_in_order_of_appearance(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "b#0 one\na#0 two\nb#1 three\n")

    annotations = load(path)

    assert annotations.split("train").video_ids == ["b", "a"]
    assert annotations.targets("train").tolist() == [0, 1, 0]


def test_byte_order_mark_carriage_returns_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.txt", b"\xef\xbb\xbfv1#0   two  words \r\n\r\nv1#1 caf\xc3\xa9\xc2\x85x\ty"
    )

    assert [(c.id, c.text) for c in load(path).captions.values()] == [
        ("v1#0", "two  words"),
        ("v1#1", "caf\xe9\x85x\ty"),
    ]


@pytest.mark.parametrize(
    "text, fault",
    [
        (b"v1#0\nv1#1 a\n", "1 x caption without text: 'v1#0' (c.txt:1)"),
        (b"v1#0  \t \nv1#1 a\n", "1 x caption without text: 'v1#0' (c.txt:1)"),
        (b"v1#0 a\nv1#0 b\n", "1 x caption id that occurs twice: 'v1#0' (c.txt:2)"),
        (b"../x#0 a\n", "'../x' (c.txt:1)"),
        (b"..#0 a\n", "'..' (c.txt:1)"),
        (b"a/b#0 a\n", "'a/b' (c.txt:1)"),
        (b"v1#$(rm) a\n", "1 x caption number with characters"),
        (b"#0 a\n", "'' (c.txt:1)"),
        (b"v1#0 a\nv1#1 \xff\n", "1 x line that is not UTF-8: byte 0xff (c.txt:2)"),
        (b"v1#0\ta man\n", "1 x tab instead of a space after the caption id"),
        (b"\n\n", "1 x split without a caption: train"),
    ],
)
def test_every_fault_is_reported_with_its_line(tmp_path: Path, text: bytes, fault: str) -> None:
    with pytest.raises(DataError) as error:
        load(write(tmp_path / "c.txt", text))

    assert fault in str(error.value)


def test_faults_of_one_kind_are_counted_with_three_examples(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "".join(f"v#{n}\n" for n in range(1200)) + "../x#0 a\n")

    with pytest.raises(DataError) as error:
        load(path)

    assert (
        "1,200 x caption without text: 'v#0' (c.txt:1); 'v#1' (c.txt:2); 'v#2' (c.txt:3) ..."
        in str(error.value)
    )
    assert "1 x id with characters outside" in str(error.value)


def test_the_same_caption_may_stand_in_two_splits_but_not_with_another_text(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "v1#0 a\n")
    write(tmp_path / "b.txt", "v1#0 b\n")

    assert load(tmp_path, train="a.txt", test="a.txt").split("test").caption_ids == ["v1#0"]
    with pytest.raises(DataError, match="another text in another split: 'v1#0' .b.txt:1"):
        load(tmp_path, train="a.txt", test="b.txt")


def test_suffixes_of_video_ids_are_dropped_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "x.jpg#enc#0 a\ny.mp4#0 b\n")

    assert load(path).split("train").video_ids == ["x.jpg", "y.mp4"]
    assert load(path, strip_suffix=True).split("train").video_ids == ["x", "y"]


def test_tiny_keeps_the_line_at_which_the_video_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "a#0 1\na#1 2\nb#0 3\na#2 4\nc#0 5\n")

    assert load(path, tiny=3).split("train").caption_ids == ["a#0", "b#0", "a#2"]


@pytest.mark.parametrize("options", [{}, {"prefix": "x"}])
def test_a_folder_without_caption_files_says_what_was_looked_for(
    tmp_path: Path, options: dict
) -> None:
    with pytest.raises(DataError, match="no caption files .*train.caption.txt"):
        load(tmp_path, **options)


def test_expected_files_of_a_collection_of_any_name(tmp_path: Path) -> None:
    expected = open_dataset({"type": "caption_files", "root": str(tmp_path)}).expected_files()
    (tmp_path / "TextData").mkdir()
    (tmp_path / "TextData/xtest.caption.txt").write_text("a#0 b")

    assert [file.path.name for file in expected] == [
        f"<collection>{s}.caption.txt" for s in ("train", "val", "test")
    ]
    assert open_dataset({"type": "caption_files", "root": str(tmp_path)}).expected_files() == []


def test_a_named_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.txt: cannot be read"):
        load(tmp_path, train="gone.txt")


def test_digest_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a.txt", "b.txt")]
    changed = write(tmp_path / "c.txt", TRAIN + "v3#0 x\n")

    digests = [Dataset(Options(root=path)).digest() for path in (*paths, changed)]

    assert digests[0] == digests[1] != digests[2]
