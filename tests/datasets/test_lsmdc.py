"""LSMDC: six tab-separated fields, ids with dots, clips with several lines."""

from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import DataError
from tests.datasets.layouts import LSMDC, lsmdc, write

CLIP = "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886"


def load(root: Path, **options: object):
    return open_dataset({"type": "lsmdc", "root": str(root), **options}).load()


def test_every_line_is_a_caption_and_quotes_mean_nothing(tmp_path: Path) -> None:
    annotations = load(lsmdc(tmp_path))

    assert annotations.split("train").video_ids == [CLIP]
    assert [c.text for c in annotations.texts("train")] == ["SOMEONE smiles.", 'He says "no".']


def test_file_of_a_clip_loses_only_its_last_suffix(tmp_path: Path) -> None:
    path = write(lsmdc(tmp_path) / "videos" / "3086_UGLY_TRUTH" / f"{CLIP}.avi", "x")

    assert load(tmp_path).videos[CLIP].path == path


@pytest.mark.parametrize(
    ("line", "fields"),
    [(LSMDC.format("1_A_0", "a\ttab"), 7), (LSMDC.format("1_A_0", ""), 5), ("1_A_0,0,0,0,0,a", 1)],
)
def test_line_without_six_fields_is_refused(tmp_path: Path, line: str, fields: int) -> None:
    with pytest.raises(
        DataError,
        match=rf"1 x line with another number .* {fields} \(LSMDC16_annos_training.csv:3\)",
    ):
        load(lsmdc(tmp_path, line))


def test_clip_id_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'../x' \(LSMDC16_annos_training.csv:3\)"):
        load(lsmdc(tmp_path, LSMDC.format("../x", "a")))


def test_published_counts_hold_for_the_published_files_with_nothing_left_out(
    tmp_path: Path,
) -> None:
    spec = {"type": "lsmdc", "root": str(tmp_path)}
    counts = [
        open_dataset(spec | more).published_counts()
        for more in ({}, {"test": "LSMDC16_annos_val.csv"}, {"exclude": ["emcl"]})
    ]

    assert counts[0] == {"train": (None, 101_079), "val": (None, 7408), "test": (1000, 1000)}
    assert counts[1].keys() == {"train", "val"}
    assert counts[2] == {}


@pytest.mark.parametrize(("name", "kept"), [("emcl", 1), ("diffusion_ret", 0)])
def test_clips_that_systems_skip_are_left_out_by_name(tmp_path: Path, name: str, kept: int) -> None:
    clips = ["0017_Pianist_00.23.28.872-00.23.34.843", "3023_DISTRICT_9_01.12.44.778-01.12.48.729"]
    lsmdc(tmp_path, *(LSMDC.format(clip, "a") for clip in clips))

    assert len(load(tmp_path, exclude=[name]).split("train").video_ids) == 1 + kept
