"""Features of other extractors: arrays in .npy, .npz and HDF5 files become a BigFile."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import cli
from pipeline.errors import DataError
from pipeline.stores.big_file.array_files import is_array_path, read_video_arrays
from pipeline.stores.big_file.reader import BigFile

WIDE = np.arange(12, dtype=np.float32).reshape(3, 4)


def as_npy(folder: Path) -> Path:
    (folder / "in" / "more").mkdir(parents=True)
    np.save(folder / "in" / "clip_0.npy", WIDE)
    np.save(folder / "in" / "more" / "clip_1.npy", WIDE[0].astype(np.float16))
    (folder / "in" / "._clip_0.npy").write_bytes(b"what macOS puts beside a copy")
    return folder / "in"


def as_npz(folder: Path) -> Path:
    np.savez(folder / "in.npz", **{"clip_0": WIDE, "more/clip_1": WIDE[0]})
    return folder / "in.npz"


def as_h5(folder: Path) -> Path:
    with h5py.File(folder / "in.h5", "w") as file:
        file["clip_0/features"] = WIDE.astype(np.float64)
        file["more/clip_1"] = WIDE[0]
    return folder / "in.h5"


@pytest.mark.parametrize("write", [as_npy, as_npz, as_h5])
@pytest.mark.parametrize("command", [["union", "--in"], ["adopt", "--path"]])
def test_arrays_per_video_become_a_big_file(tmp_path: Path, write, command: list[str]) -> None:
    source = write(tmp_path)

    assert cli.main([*command, str(source), "--out", str(tmp_path / "out")]) == 0

    store = BigFile.open(tmp_path / "out")
    assert list(store.videos) == ["clip_0", "more/clip_1"]
    assert np.array_equal(store.read_video("clip_0"), WIDE)
    assert np.array_equal(store.read_video("more/clip_1"), WIDE[:1])
    assert cli.main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("command", [["union", "--in"], ["adopt", "--path"]])
def test_numbers_at_the_end_of_names_are_no_frames(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "in").mkdir()
    for n in range(3):
        np.save(tmp_path / "in" / f"video_{n}.npy", WIDE[n])

    assert cli.main([*command, str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0

    store = BigFile.open(tmp_path / "out")
    assert list(store.videos) == ["video_0", "video_1", "video_2"]
    assert not store.has_frames


def test_archives_of_one_video_each_are_named_by_their_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=WIDE)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["feat"] = WIDE
    np.save(tmp_path / "c.npy", WIDE)

    found = read_video_arrays(tmp_path)

    assert list(found.frame_lists) == ["a", "b", "c"]


def test_a_file_of_widths_that_differ_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", a=WIDE, b=WIDE, short=WIDE[:, :3])

    with pytest.raises(DataError, match=r"2 videos have 4 values, 'short' has 3"):
        read_video_arrays(tmp_path / "f.npz")


@pytest.mark.parametrize(("array", "told"), [
    (np.array([{"a": 1}], dtype=object), "Python objects"),
    (np.array(["text"]), "no features of a video: 'a'"),
    (np.zeros((2, 3, 4)), "no features of a video: 'a'"),
    (np.zeros((0, 4)), "no features of a video: 'a'"),
])  # fmt: skip
def test_what_is_no_array_of_features_is_refused(tmp_path: Path, array, told: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)

    with pytest.raises(DataError, match=told):
        read_video_arrays(tmp_path)


def test_a_name_that_two_files_have_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", WIDE)
    np.savez(tmp_path / "other.npz", a=WIDE)

    with pytest.raises(DataError, match="more than once: 'a' in .*a.npy and .*other.npz"):
        read_video_arrays(tmp_path)


def test_an_id_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{"../a": WIDE})

    with pytest.raises(DataError, match="cannot be the id of a video"):
        read_video_arrays(tmp_path / "f.npz")


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    as_h5(tmp_path)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "in.h5"), "more/clip_1")

    with pytest.raises(DataError, match="'a' is a link"):
        read_video_arrays(tmp_path / "link.h5")


def test_an_hdf5_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    as_h5(tmp_path)
    data = (tmp_path / "in.h5").read_bytes()
    (tmp_path / "in.h5").write_bytes(data[: len(data) // 2])

    with pytest.raises(DataError, match="not a usable HDF5 file"):
        read_video_arrays(tmp_path / "in.h5")


def test_other_folders_are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").touch()

    assert not is_array_path(tmp_path)
