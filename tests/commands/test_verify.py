"""verify and forget on what the stages write: damage that keeps size and time is found and
named.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from cli import main
from pipeline.core.results.generations import kept_results
from pipeline.core.runner import run
from tests.core.test_generations import ONE, Costly
from tests.core.toy import Options
from tests.stages.store_runs import big_file, frames, tensors, videos
from tests.trees import tree


def flip(path: Path, needle: bytes = b"", offset: int = 0) -> None:
    """Change one byte, and put the time back: what a disk fault looks like."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[data.index(needle) + offset if needle else offset] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def features(tmp_path: Path) -> Path:
    rows = {f"v{n}": np.full((2, 3), n + 1, np.float32) for n in range(4)}
    big_file(tmp_path / "raw", rows)
    assert main(["concat", "--in", str(tmp_path / "raw"), "--in", str(tmp_path / "raw"),
                 "--out", str(tmp_path / "features")]) == 0  # fmt: skip
    return tmp_path / "features"


def test_a_flipped_bit_of_features_is_found_named_and_mended(features, tmp_path, capsys):
    before = tree(features)
    flip(features / "feature.bin", np.float32(3).tobytes())

    code = main(["verify", str(features)])

    told = capsys.readouterr()
    assert code == 4
    assert "feature.bin has the right size and other content" in told.out
    assert "(v2)" in told.out
    again = ["concat", *["--in", str(tmp_path / "raw")] * 2, "--out", str(features)]
    assert main(again) == 0
    assert tree(features) == before
    assert main(["verify", str(features)]) == 0


def test_damage_of_frames_and_tensors_is_named(tmp_path, capsys):
    store = frames(videos(tmp_path / "in"), tmp_path / "frames", direct=True, short_side=48)
    tensors({"store": store}, tmp_path / "tensors", frames={"size": 32})
    flip(tmp_path / "tensors/frames/part-00000.h5", offset=2 * 4096)

    assert main(["verify", str(tmp_path)]) == 4
    told = capsys.readouterr().out

    assert "part-00000.h5 has the right size and other content" in told
    assert "frames/video0" in told
    assert told.count(" ok") == 1


def test_damaged_input_of_a_stage_is_refused(features, tmp_path, capsys):
    (features / "feature.bin").write_bytes(bytes((features / "feature.bin").stat().st_size))

    code = main(["pool", "--in", str(features), "--out", str(tmp_path / "pool")])

    assert code == 4
    assert "feature.bin has the right size and other content" in capsys.readouterr().err


def test_forget_lists_and_removes_only_what_is_named(tmp_path, capsys):
    for power in (2, 3, 4):
        run(Costly(Options(power=power), {}, tmp_path), "toy", ONE)
    first, _ = kept_results(tmp_path)

    assert main(["forget", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert main(["forget", str(tmp_path), first.path.name]) == 0
    left = len(kept_results(tmp_path))
    assert main(["forget", str(tmp_path), "--all"]) == 0

    assert listed.count("complete") == 2
    assert left == 1
    assert not (tmp_path / "_previous").exists()
    assert main(["forget", str(tmp_path), "nothing"]) == 2
