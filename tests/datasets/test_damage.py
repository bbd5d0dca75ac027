"""Files with damage at random places: every reader either reads them or says what is wrong, never
anything else.
"""

import json
import random
from pathlib import Path

import pytest

from pipeline.datasets.base import open_dataset
from pipeline.errors import TvrError
from tests.datasets.layouts import ALL, CLIPS, write

ODD = [
    None,
    True,
    0,
    -1,
    3.5,
    1e400,
    "",
    "..",
    "../x",
    "\ud800",
    "a\0b",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": 1},
    "\x1b[2J",
]
BYTES = (
    b"\t",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"\0",
    b"\xff",
    b"..",
    b"/",
    b"#",
    b"\x1b",
    b"\xe2\x80\x8f",
)


def odd(value: object, chance: random.Random) -> object:
    """The value with some of what is in it replaced."""
    if chance.random() < 0.08:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {k if chance.random() > 0.05 else "../x": odd(v, chance) for k, v in value.items()}
    return [odd(v, chance) for v in value] if isinstance(value, list) else value


def damage(path: Path, chance: random.Random) -> None:
    if path.suffix == ".json" and chance.random() < 0.8:
        path.write_text(json.dumps(odd(json.loads(path.read_bytes()), chance)))
        return
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(data) + 1)
        length = chance.choice((0, 0, 1, 15))
        data[place : place + length] = chance.choice((b"", chance.choice(BYTES), data[:20]))
    path.write_bytes(data)


def opened(kind: str, root: Path, chance: random.Random) -> dict:
    """A new data set of a kind, some of it damaged; how to open it."""
    ALL[kind](root)
    options: dict[str, object] = {}
    if kind not in ("folder", "caption_files") and chance.random() < 0.4:
        write(root / "video_path.json", {CLIPS[0]: "a/b.avi", "v_abc": "x.mp4"})
        options = {"video_paths": "video_path.json", "only_listed": chance.random() < 0.5}
    files = sorted(p for p in root.rglob("*.*") if p.is_file() and p.suffix != ".mp4")
    for path in chance.sample(files, min(2, len(files))):
        damage(path, chance)
    return {"type": kind, "root": str(root), **options}


@pytest.mark.parametrize("kind", ALL)
def test_damage_is_read_or_explained(kind: str, tmp_path: Path) -> None:
    for seed in range(40):
        dataset = open_dataset(opened(kind, tmp_path / str(seed), random.Random(f"{kind} {seed}")))
        assert all(str(file) for file in dataset.expected_files())

        try:
            annotations = dataset.load()
        except TvrError as error:
            assert error.what and error.where and error.fix
            assert "\x1b" not in str(error)
            continue
        assert all(len(annotations.targets(split)) for split in annotations.splits)
        assert all(c.text.encode() is not None for c in annotations.captions.values())
