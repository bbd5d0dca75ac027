"""What the published data sets share: files that are missing, videos by id, exclusions, digests."""

from pathlib import Path

import pytest

from pipeline.core.plan import dataset_artefact
from pipeline.datasets.base import open_dataset
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError
from tests.datasets.layouts import CLIPS, WRITERS, msvd, write

NAMES = sorted(WRITERS)


def load(name: str, root: Path, **options: object):
    return open_dataset({"type": name, "root": str(root), **options}).load()


@pytest.mark.parametrize("name", NAMES)
def test_every_split_has_targets_in_its_gallery(tmp_path: Path, name: str) -> None:
    annotations = load(name, WRITERS[name](tmp_path))

    assert {"train", "val", "test"} == annotations.splits.keys()
    for split, part in annotations.splits.items():
        owners = [part.video_ids[column] for column in annotations.targets(split)]
        assert owners == [caption.video_id for caption in annotations.texts(split)]


@pytest.mark.parametrize("name", NAMES)
def test_missing_annotation_files_are_named_all_together(tmp_path: Path, name: str) -> None:
    dataset = open_dataset({"type": name, "root": str(tmp_path)})
    expected = [file for file in dataset.expected_files() if file.kind == "annotations"]

    with pytest.raises(DataError) as error:
        dataset.load()

    assert f"{len(expected)} of {len(expected)} annotation files are missing" in str(error.value)
    assert all(
        f"{file.path} ({file.what}); from: {file.source}" in str(error.value) for file in expected
    )
    assert all(file.is_missing and file.source for file in dataset.expected_files())


@pytest.mark.parametrize("name", NAMES)
def test_published_counts_are_given_for_every_split(tmp_path: Path, name: str) -> None:
    assert open_dataset({"type": name, "root": str(tmp_path)}).published_counts().keys() == {
        "train",
        "val",
        "test",
    }


def test_videos_are_found_by_stem_in_any_folder(tmp_path: Path) -> None:
    msvd(tmp_path)
    path = write(tmp_path / "videos" / "deep" / f"{CLIPS[0]}.avi", "x")

    videos = load("msvd", tmp_path).videos

    assert [video.path for video in videos.values()] == [path, None, None]


def test_status_says_how_many_videos_are_there(tmp_path: Path) -> None:
    msvd(tmp_path)
    write(tmp_path / "videos" / f"{CLIPS[0]}.avi", "x")

    *_, videos = open_dataset({"type": "msvd", "root": str(tmp_path)}).expected_files()

    assert (videos.status, videos.is_missing) == ("1 of 3 found", True)


@pytest.mark.parametrize(
    ("there", "status", "is_missing"), [(0, "all 3 missing", True), (2, "2 of 3 found", False)]
)
def test_videos_that_may_be_dropped_are_counted_and_not_waited_for(
    tmp_path, there, status, is_missing
) -> None:
    msvd(tmp_path)
    for clip in CLIPS[:there]:
        write(tmp_path / "videos" / f"{clip}.avi", "x")

    *_, videos = open_dataset(
        {"type": "msvd", "root": str(tmp_path), "missing": "drop"}
    ).expected_files()

    assert (videos.status, videos.is_missing) == (status, is_missing)


def test_missing_videos_can_be_dropped_with_their_captions(tmp_path: Path) -> None:
    msvd(tmp_path)
    for clip in CLIPS[:2]:
        write(tmp_path / "videos" / f"{clip}.avi", "x")
    write(tmp_path / "test_list.txt", "\n".join(CLIPS[1:]))

    annotations = load("msvd", tmp_path, missing="drop")

    assert annotations.split("test").video_ids == [CLIPS[1]]
    assert annotations.notes[-1] == f"1 of 3 videos are dropped with their captions: {CLIPS[2]}"


def test_dropping_changes_the_digest_when_a_video_appears(tmp_path: Path) -> None:
    msvd(tmp_path)
    dataset = open_dataset({"type": "msvd", "root": str(tmp_path), "missing": "drop"})
    write(tmp_path / "test_list.txt", "\n".join(CLIPS))
    for clip in CLIPS[:2]:
        write(tmp_path / "videos" / f"{clip}.avi", "x")
    before = dataset.digest()

    write(tmp_path / "videos" / "stranger.avi", "x")
    same = dataset.digest()
    write(tmp_path / "videos" / f"{CLIPS[2]}.avi", "x")

    assert before == same != dataset.digest()


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is left of train"):
        load("msvd", msvd(tmp_path), missing="drop")


def test_listed_paths_are_looked_up_and_never_leave_the_folder(tmp_path: Path) -> None:
    msvd(tmp_path)
    path = write(tmp_path / "videos" / "sub" / "x.mp4", "x")
    write(
        tmp_path / "video_path.json",
        {CLIPS[0]: "sub/x.mp4", CLIPS[1]: "elsewhere/x.mp4", CLIPS[2]: "none.mp4"},
    )

    videos = load("msvd", tmp_path, video_paths="video_path.json").videos

    assert [video.path for video in videos.values()] == [path, path, None]


def test_listed_file_may_have_another_suffix_by_now(tmp_path: Path) -> None:
    path = write(msvd(tmp_path) / "videos" / f"{CLIPS[0]}.mp4", "x")
    write(tmp_path / "video_path.json", {CLIPS[0]: f"YouTubeClips/{CLIPS[0]}.avi"})

    assert load("msvd", tmp_path, video_paths="video_path.json").videos[CLIPS[0]].path == path


@pytest.mark.parametrize("value", ["x" * 300, "a\0b.mp4", "\u00e9" * 200])
def test_listed_path_that_no_file_can_have_is_refused(tmp_path: Path, value: str) -> None:
    write(msvd(tmp_path) / "video_path.json", {CLIPS[0]: value})

    with pytest.raises(DataError, match="1 x path that no file can have"):
        load("msvd", tmp_path, video_paths="video_path.json")


@pytest.mark.parametrize("value", ["../x.mp4", "/etc/passwd", "a\\..\\x", ""])
def test_listed_path_that_leaves_the_folder_is_refused(tmp_path: Path, value: str) -> None:
    write(msvd(tmp_path) / "video_path.json", {CLIPS[0]: value})

    with pytest.raises(DataError, match="1 x path that is absolute, or leaves its folder"):
        load("msvd", tmp_path, video_paths="video_path.json")


def test_only_listed_leaves_the_others_out_and_says_so(tmp_path: Path) -> None:
    write(msvd(tmp_path) / "video_path.json", {CLIPS[0]: "x.mp4", CLIPS[1]: "y.mp4"})
    write(tmp_path / "test_list.txt", "\n".join(CLIPS[1:]))

    annotations = load("msvd", tmp_path, video_paths="video_path.json", only_listed=True)

    assert annotations.split("test").video_ids == [CLIPS[1]]
    assert f"not in video_path.json, left out: 1: {CLIPS[2]}" in annotations.notes


def test_excluded_ids_are_left_out_and_unknown_ones_refused(tmp_path: Path) -> None:
    msvd(tmp_path)
    write(tmp_path / "test_list.txt", "\n".join(CLIPS[1:]))

    assert load("msvd", tmp_path, exclude=[CLIPS[2]]).split("test").video_ids == [CLIPS[1]]
    with pytest.raises(
        DataError, match="exclude: neither a video nor a published list .*: 'diffusionret'"
    ):
        load("msvd", tmp_path, exclude=["diffusionret"])


def test_step_that_reads_the_videos_gets_the_missing_ones_as_faults(tmp_path: Path) -> None:
    spec = {"type": "msvd", "root": str(msvd(tmp_path))}
    write(tmp_path / "videos" / f"{CLIPS[0]}.avi", "x")

    sources = video_sources(dataset_artefact(spec, "video_files")).sources

    assert [source.id for source in sources] == list(CLIPS)
    assert [bool(source.problem) for source in sources] == [False, True, True]


def test_step_that_reads_the_videos_is_refused_when_there_is_none(tmp_path: Path) -> None:
    spec = {"type": "msvd", "root": str(msvd(tmp_path))}

    with pytest.raises(
        DataError, match="none of the 3 videos of this dataset has a file\n.*--dry-run"
    ):
        video_sources(dataset_artefact(spec, "video_files"))


@pytest.mark.parametrize("name", NAMES)
def test_digest_follows_the_bytes_and_not_the_place(tmp_path: Path, name: str) -> None:
    one, two = (
        open_dataset({"type": name, "root": str(WRITERS[name](tmp_path / n))}) for n in "ab"
    )
    before = one.digest()

    path = tmp_path / "b" / next(iter(two.files().values())).path.name
    same = two.digest()
    path.write_bytes(path.read_bytes() + b"\n")

    assert before == same != two.digest()
