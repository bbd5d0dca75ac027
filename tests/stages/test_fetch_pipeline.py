"""The shipped pipelines that begin with lists of addresses: what comes finds its captions, under
their ids.
"""

from pathlib import Path

import pytest

import cli
from pipeline.stores.frame_store.reader import FrameStore
from tests.datasets.layouts import LSMDC, write
from tests.fetching.web import serving
from tests.videos import Film
from tests.videos import write as film

CLIPS = [f"{n}_B_00.00.0{n}.000-00.00.02.000" for n in (1, 2, 3)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def served(folder: Path, suffix: str) -> dict[str, bytes]:
    """{file name: film} for every clip."""
    made = {
        f"{clip}{suffix}": film(folder / f"{clip}{suffix}", Film(frames=20, fps=10))
        for clip in CLIPS
    }
    return {name: path.read_bytes() for name, path in made.items()}


def run(pipeline: str, *more: str) -> int:
    return cli.main(["run", pipeline, "--until", "frames", "-j", "1", *more])


def stored(folder: Path) -> list[str]:
    return sorted(FrameStore.open(folder / "frames").ids)


def test_clips_of_lsmdc_are_fetched_from_its_lists_and_compressed_on_arrival(here: Path) -> None:
    root = here / "data/lsmdc"
    names = ("LSMDC16_annos_training", "LSMDC16_annos_val", "LSMDC16_challenge_1000_publictect")
    for clip, name in zip(CLIPS, names, strict=True):
        write(root / f"{name}.csv", LSMDC.format(clip, "SOMEONE smiles."))

    with serving(served(here / "site", ".avi")) as web:
        for clip, kind in zip(CLIPS, ("MPIIMD", "BlindTest", "MVADaligned"), strict=True):
            write(root / f"{kind}_downloadLinks.txt", web.url(f"plain/{clip[:3]}/{clip}.avi"))
        code = run("lsmdc-fetch", "--set", "fetch.compress.short_side=64")

    assert code == 0
    assert stored(here / "data/work/lsmdc-fetch") == CLIPS
    assert sorted(p.name for p in (here / "data/work/lsmdc-fetch/fetch").glob("*.*")) == [
        f"{c}.mp4" for c in CLIPS
    ]


def test_ones_own_addresses_are_fetched_kept_and_compressed(here: Path) -> None:
    rows = "".join(f"{clip}.mp4,a film\n" for clip in CLIPS)
    write(here / "data/mine/captions.csv", f"video,caption\n{rows}")
    films = served(here / "site", ".mp4")

    with serving(films) as web:
        write(
            here / "data/mine/links.txt", "".join(web.url(f"plain/{name}") + "\n" for name in films)
        )
        code = run("mine-fetch", "--set", "compress.short_side=64")

    assert code == 0
    assert stored(here / "data/work/mine-fetch") == CLIPS
    assert (here / f"data/work/mine-fetch/fetch/{CLIPS[0]}.mp4").read_bytes() == films[
        f"{CLIPS[0]}.mp4"
    ]


def test_other_pipelines_read_what_one_fetched(here: Path, capsys: pytest.CaptureFixture) -> None:
    for clip in CLIPS:
        film(here / f"data/work/lsmdc-fetch/fetch/{clip}.mp4", Film(frames=3))
    for name in (
        "LSMDC16_annos_training",
        "LSMDC16_annos_val",
        "LSMDC16_challenge_1000_publictect",
    ):
        write(
            here / f"data/lsmdc/{name}.csv",
            "\n".join(LSMDC.format(clip, "SOMEONE smiles.") for clip in CLIPS),
        )

    cli.main(["run", "lsmdc-drl", "--dry-run", "--set", "dataset.videos=../work/lsmdc-fetch/fetch"])

    assert "would process 3 of 3 items" in capsys.readouterr().out
