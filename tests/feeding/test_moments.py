"""Moments of a film are fed alike from its file and from a frame store of the whole film."""

from pathlib import Path

import numpy as np

from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.datasets.parts.sources import video_sources
from pipeline.feeding.frame_source import DecodedFiles, StoredFrames
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.video.reader import FrameChoice, decode_clip
from tests.stages.store_runs import frames
from tests.videos import Film, write

SIZE = 64
MOMENT = "film@1-2.5"


def read(source: StoredFrames | DecodedFiles, video_id: str) -> np.ndarray:
    index = np.arange(source.count(video_id))
    out = np.empty((len(index), SIZE, SIZE, 3), np.uint8)
    source.read(video_id, index, out)
    return out


def test_moments_are_cut_from_files_and_from_stores_of_whole_films(tmp_path: Path) -> None:
    film = write(tmp_path / "in/film.mp4", Film(frames=20, fps=4, width=SIZE, height=SIZE))
    store = frames(Artefact("video_files", film.parent), tmp_path / "store", layout="raw")
    wanted = decode_clip(film, FrameChoice("all")).images[4:10]

    from_store = StoredFrames(FrameStore.open(store.path), SIZE, "center_crop")
    from_file = DecodedFiles({"film": film}, SIZE, "center_crop", None)

    for source in (from_store, from_file):
        assert source.holds(MOMENT)
        assert not source.holds("other@1-2")
        assert np.array_equal(read(source, MOMENT), wanted)


def test_a_step_sees_each_moment_as_a_video_of_its_own(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Film(frames=20, fps=4, width=SIZE, height=SIZE))
    (tmp_path / "captions.csv").write_text("video,start,end,caption\nfilm,1,2.5,a\nfilm,3,,b\n")
    dataset = dataset_artefact({"type": "folder", "root": str(tmp_path)}, "video_files")

    sources = video_sources(dataset).sources
    store = frames(dataset, tmp_path / "out", layout="raw")

    assert [source.id for source in sources] == [MOMENT, "film@3-"]
    assert len({source.key for source in sources}) == 2
    whole = decode_clip(film, FrameChoice("all")).images
    stored = FrameStore.open(store.path)
    assert np.array_equal(stored.read(MOMENT), whole[4:10])
    assert np.array_equal(stored.read("film@3-"), whole[12:])
