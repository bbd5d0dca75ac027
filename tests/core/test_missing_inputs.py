"""What --dry-run says about files that somebody has to put into place, and steps that read files
lying ready.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.core.plan import Pipeline
from pipeline.core.status import assess_all, missing_inputs
from pipeline.errors import ConfigError
from tests.datasets.layouts import CLIPS, msvd, write

ROOT = Path(__file__).resolve().parents[2]
YAML = """
datasets: {{set: {{type: msvd, root: {root}/data}}}}
pipelines:
  texts: {{dataset: set, steps: {{vocab: {{}}}}}}
  videos: {{dataset: set, steps: {{compress: {{}}}}}}
  given:
    dataset: set
    steps:
      vocab: {{}}
      tags: {{}}
      features: {{in: {root}/raw, networks: [tiny-random]}}
      word2vec: {{source: {root}/vectors.txt}}
      train: {{recipe: tiny_dual, init: {root}/weights.pt}}
"""


@pytest.fixture
def opened(tmp_path: Path):
    path = write(tmp_path / "own.yaml", YAML.format(root=tmp_path))
    return lambda name: Pipeline.open(config.load(path), name, tmp_path / "work")


def test_every_missing_file_is_listed_with_its_place_and_where_to_get_it(
    opened, tmp_path: Path
) -> None:
    lines = missing_inputs(opened("videos"))["dataset"].split("\n    ")

    assert len(lines) == 5
    assert (
        lines[1]
        == f"missing: {tmp_path}/data/train_list.txt (list of train); from: msvd_data.zip, "
        "https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msvd_data.zip"
    )
    assert lines[-1].startswith(f"missing: {tmp_path}/data/videos/<video id>.avi (the videos")
    assert "e.g. -4wsuPCjDBc_5_15.avi); from: YouTubeClips.tar, https://" in lines[-1]


def test_videos_count_only_where_a_step_reads_them(opened, tmp_path: Path) -> None:
    msvd(tmp_path / "data")
    write(tmp_path / "data" / "videos" / f"{CLIPS[0]}.avi", "x")

    assert missing_inputs(opened("texts")) == {}
    assert "1 of 3 found: " in missing_inputs(opened("videos"))["dataset"]


def test_files_that_are_there_but_wrong_are_explained(opened, tmp_path: Path) -> None:
    write(msvd(tmp_path / "data") / "val_list.txt", "unknown")

    assert (
        "1 x id of a split that has no captions: 'unknown'"
        in missing_inputs(opened("texts"))["dataset"]
    )


def test_paths_of_needs_and_options_are_listed_and_block_their_step(opened, tmp_path: Path) -> None:
    msvd(tmp_path / "data")
    pipeline = opened("given")

    assert list(missing_inputs(pipeline)) == ["features.videos", "word2vec.source", "train.init"]
    assert (
        str(assess_all(pipeline)["features"])
        == f"blocked: {tmp_path}/raw: there is no such file or folder"
    )


def test_content_of_a_file_that_lies_ready_counts_and_its_time_does_not(
    opened, tmp_path: Path
) -> None:
    path = write(tmp_path / "weights.pt", "a")
    contents = []

    for text, seconds in (("a", 1), ("a", 2), ("b", 3)):
        path.write_text(text)
        os.utime(path, (seconds, seconds))
        contents.append(opened("given").artefact(str(path), "checkpoint").content)

    assert contents[0] == contents[1] != contents[2]


def test_name_without_a_slash_is_a_step(tmp_path: Path) -> None:
    path = write(
        tmp_path / "own.yaml",
        YAML.format(root=tmp_path).replace(f"init: {tmp_path}/weights.pt", "init: tain"),
    )

    with pytest.raises(ConfigError, match="steps.train.init: there is no earlier step 'tain'"):
        Pipeline.open(config.load(path), "given", tmp_path)


def test_a_list_that_is_two_splits_is_named_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "own.yaml", YAML.replace("type: msvd", "type: msrvtt").format(root=tmp_path)
    )
    lines = missing_inputs(Pipeline.open(config.load(path), "texts", tmp_path))["dataset"].split(
        "\n    "
    )

    assert [
        line.split("/")[-1]
        for line in lines
        if "JSFUSION" in line and "list of val, list of test" in line
    ]
    assert sum("JSFUSION" in line for line in lines) == 1


def test_caption_files_of_a_collection_are_named_one_by_one(tmp_path: Path) -> None:
    config_ = YAML.replace("type: msvd", "type: caption_files, prefix: own").format(root=tmp_path)
    lines = missing_inputs(
        Pipeline.open(config.load(write(tmp_path / "own.yaml", config_)), "texts", tmp_path)
    )

    assert [line.split(" (")[0] for line in lines["dataset"].split("\n    ")] == [
        f"missing: {tmp_path}/data/TextData/own{split}.caption.txt"
        for split in ("train", "val", "test")
    ]


@pytest.mark.parametrize(
    "name", ["msrvtt-9k-drl", "activitynet-hybrid_space", "mine-dual_encoding_pp"]
)
def test_dry_run_of_a_shipped_pipeline_works_without_data(tmp_path: Path, name: str) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "run", name, "--dry-run", "--json"]

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    missing = json.loads(result.stdout)["missing"]
    assert "missing: data/" in missing["dataset"]
    assert not any(tmp_path.iterdir())
