"""Videos of a folder become an index, one at a time; what changes is done again, and nothing
else.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.checkpoints.model_file import load_model
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.stages.index import Options, Stage
from pipeline.stores.index.reader import SUMMARY, IndexStore
from tests.search.systems import checkpoint
from tests.stages.store_runs import big_file, tensors
from tests.trees import tree
from tests.videos import Film, write

SHORT, LONG = Film(frames=6, fps=3, width=64, height=48), Film(60, 2, 64, 48)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"), "mean")[2]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write(tmp_path / "films" / "a.mp4", SHORT)
    write(tmp_path / "films" / "sub" / "long.mp4", LONG)
    return tmp_path / "films"


def index(films: Path, model: Path, out: Path, jobs: int = 1, **options: object) -> dict:
    inputs = dict.fromkeys(Stage.needs) | {
        "videos": Artefact("video_files", films),
        "checkpoint": Artefact("checkpoint", model, content="c1"),
    }
    stage = Stage(Options(**options), inputs, out)
    return run(stage, "index", Settings(jobs=jobs, max_failures=1, allow_removals=True))


def search(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["search", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_folder_becomes_whole_videos_and_windows(films, model, tmp_path, capsys) -> None:
    summary = index(films, model, tmp_path / "idx")["summary"]

    store = IndexStore.open(tmp_path / "idx")
    places = [store.place(row) for row in range(store.rows)]
    assert (summary["videos"], summary["windows"]) == (2, 7)
    assert places[0].path == str(films / "a.mp4") and (places[0].start, places[0].end) == (0, 2)
    assert [(p.start, p.end) for p in places[1:]] == [
        (0, 30), (0, 10), (5, 15), (10, 20), (15, 25), (20, 30),
    ]  # fmt: skip
    code, out, err = search(capsys, tmp_path / "idx", "a dog runs", "--json", "--top", 50)
    found = json.loads(out)
    assert code == 0 and len(found["results"]) == 7
    assert found["searched"]["videos"] == 2
    assert {"rank", "score", "video", "path", "start", "end"} <= found["results"][0].keys()


def test_two_workers_write_the_same_bytes(films, model, tmp_path) -> None:
    for jobs in (1, 2):
        index(films, model, tmp_path / str(jobs), jobs)

    assert tree(tmp_path / "1" / "store") == tree(tmp_path / "2" / "store")


def test_an_added_video_costs_that_video_and_a_removed_one_goes(films, model, tmp_path) -> None:
    index(films, model, tmp_path / "idx")
    before = IndexStore.open(tmp_path / "idx").array(SUMMARY).copy()
    write(films / "b.mp4", SHORT)
    (films / "a.mp4").unlink()

    index(films, model, tmp_path / "idx")

    store = IndexStore.open(tmp_path / "idx")
    assert list(store.ids()) == ["b", "sub/long"]
    assert np.array_equal(store.array(SUMMARY)[1:], before[1:])
    index(films, model, tmp_path / "fresh")
    assert tree(tmp_path / "fresh" / "store") == tree(tmp_path / "idx" / "store")


def test_a_broken_video_is_set_aside_by_name(films, model, tmp_path, capsys) -> None:
    (films / "broken.mp4").write_bytes(b"no film")

    index(films, model, tmp_path / "idx")

    assert list((tmp_path / "idx" / "_state" / "failed").glob("broken*"))
    _, _, err = search(capsys, tmp_path / "idx", "a dog runs")
    assert "1 video set aside" in err


def test_another_checkpoint_is_refused(films, model, tmp_path, capsys) -> None:
    index(films, model, tmp_path / "idx", window=0)
    other = checkpoint(tmp_path / "other", "dp")[2]

    code, _, err = search(capsys, tmp_path / "idx", "a dog", "--checkpoint", other)

    assert code == 4 and "another checkpoint" in err and "--checkpoint" in err


def test_a_collection_that_moved_is_told_its_root(films, model, tmp_path, capsys) -> None:
    index(films, model, tmp_path / "idx", window=0)
    films.rename(tmp_path / "moved")

    _, out, _ = search(
        capsys, tmp_path / "idx", "a dog", "--root", tmp_path / "moved", "--path", "sub/*", "--json"
    )

    (found,) = json.loads(out)["results"]
    assert found["path"] == str(tmp_path / "moved" / "sub" / "long.mp4")


def test_similar_videos_and_pictures_are_found_and_shown(films, model, tmp_path, capsys) -> None:
    from PIL import Image

    index(films, model, tmp_path / "idx")
    Image.new("RGB", (80, 60), (200, 0, 0)).save(tmp_path / "red.png")

    alike = search(capsys, tmp_path / "idx", "--video", "a", "--per-video", 1, "--json")
    by_file = search(capsys, tmp_path / "idx", "--video", films / "a.mp4", "--json", "--top", 1)
    page = tmp_path / "page.html"
    by_image = search(capsys, tmp_path / "idx", "--image", tmp_path / "red.png", "--html", page)
    mixed = search(capsys, tmp_path / "idx", "2:a dog", "+", tmp_path / "red.png", "-", "fruit")

    assert [found["video"] for found in json.loads(alike[1])["results"]] == ["sub/long"]
    assert json.loads(by_file[1])["results"][0]["video"] == "a"
    assert by_image[0] == 0 and page.read_text().count("data:image/jpeg") == 7
    assert mixed[0] == 0


def test_many_queries_and_hostile_ones(films, model, tmp_path, capsys) -> None:
    index(films, model, tmp_path / "idx", window=0)
    (tmp_path / "queries").write_text('a dog runs\n"2:a dog" - fruit\n')

    many = search(capsys, tmp_path / "idx", "--queries", tmp_path / "queries", "--json")
    long = search(capsys, tmp_path / "idx", "x" * 100_000)
    empty = search(capsys, tmp_path / "idx", " ")

    assert [each["query"] for each in json.loads(many[1])] == ["a dog runs", "2:a dog - fruit"]
    assert long[0] == 2 and "100,000 letters" in long[2]
    assert empty[0] == 2 and "an empty query" in empty[2]


def test_an_answer_that_fits_no_limit_is_no_answer_and_says_what_was_searched(
    films, model, tmp_path, capsys
) -> None:
    index(films, model, tmp_path / "idx")

    none = search(capsys, tmp_path / "idx", "a dog", "--min-score", 5)
    some = search(capsys, tmp_path / "idx", "a dog", "--path", "sub/*", "--json")
    nobody = search(capsys, tmp_path / "idx", "a dog", "--path", "x*")

    assert none[1] == "no answer\n" == nobody[1]
    assert "searched 0 (path 'x*') of 2 videos, 7 windows" in nobody[2]
    searched = json.loads(some[1])["searched"]
    assert (searched["videos"], searched["windows"]) == (1, 6)


def test_a_question_in_one_word_is_what_it_is_in_many(films, model, tmp_path, capsys) -> None:
    index(films, model, tmp_path / "idx", window=0)

    one = search(capsys, tmp_path / "idx", '"2:a dog" - "fruit"', "--json")
    many = search(capsys, tmp_path / "idx", "2:a dog", "-", "fruit", "--json")

    assert one[:2] == many[:2] and one[0] == 0


def test_options_of_a_checkpoint_are_refused_for_an_index_and_what_is_neither_is_named(
    films, model, tmp_path, capsys
) -> None:
    index(films, model, tmp_path / "idx", window=0)

    other = search(capsys, tmp_path / "idx", "a dog", "--videos", tmp_path)
    nothing = search(capsys, films, "a dog")

    assert other[0] == 2 and "--videos goes with a CHECKPOINT" in other[2]
    assert nothing[0] == 4 and "neither an index nor a checkpoint" in nothing[2]
    assert "cli.py index --in" in nothing[2]


def test_a_half_built_index_says_so(films, model, tmp_path, capsys) -> None:
    (tmp_path / "idx" / "store.partial").mkdir(parents=True)

    code, _, err = search(capsys, tmp_path / "idx", "a dog")

    assert code == 4 and "not finished" in err


def test_a_folder_without_videos_is_no_empty_index(model, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()

    code = cli.main(
        ["index", "--in", str(tmp_path / "empty"), "--checkpoint", str(model),
         "--out", str(tmp_path / "idx")]
    )  # fmt: skip

    assert code == 4 and "no video" in capsys.readouterr().err


def test_cached_frames_have_windows_at_the_rate_their_step_recorded(films, model, tmp_path) -> None:
    size = load_model(model)[0].inputs.size
    cache = tensors(
        {"videos": Artefact("video_files", films)}, tmp_path / "cache", frames={"size": size}
    )
    inputs = dict.fromkeys(Stage.needs) | {
        "tensors": Artefact("tensors", tmp_path / "cache"),
        "checkpoint": Artefact("checkpoint", model, content="c1"),
    }

    run(Stage(Options(), inputs, tmp_path / "cached"), "index", Settings(jobs=1))
    index(films, model, tmp_path / "raw")

    cached, raw = (IndexStore.open(tmp_path / name) for name in ("cached", "raw"))
    assert cache["counts"]["ok"] == 2
    assert cached.rows == raw.rows > 2


def test_cached_frames_of_another_size_say_which_one_the_model_reads(
    films, model, tmp_path, capsys
) -> None:
    videos = {"videos": Artefact("video_files", films)}
    tensors(videos, tmp_path / "cache", frames={"size": 16})

    code = cli.main(
        ["index", "--in", str(tmp_path / "cache"), "--checkpoint", str(model),
         "--out", str(tmp_path / "idx")]
    )  # fmt: skip

    err = capsys.readouterr().err
    assert (
        code == 4 and "16x16 pixels, the model reads 64x64" in err and "frames: {size: 64}" in err
    )


def test_a_published_file_without_its_words_says_how_to_give_them(tmp_path, capsys) -> None:
    from models.hybrid_space import published
    from pipeline.checkpoints.archive_writer import write_archive
    from tests.models.hybrid_space.small_hybrid import small

    made = small(space="hybrid")
    write_archive(
        tmp_path / "best.pth.tar", published.export_file(made.options, made.state_dict(), {})
    )
    big_file(tmp_path / "features", {"a": np.ones((3, 5), np.float32)})

    code = cli.main(
        ["index", "--in", str(tmp_path / "features"), "--checkpoint",
         str(tmp_path / "best.pth.tar"), "--out", str(tmp_path / "idx")]
    )  # fmt: skip

    assert code == 2
    assert "import-checkpoint" in (err := capsys.readouterr().err) and "--vocab FILE" in err
