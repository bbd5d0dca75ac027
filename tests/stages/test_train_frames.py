"""Training and evaluating a model that reads frames and CLIP tokens, run by the engine on small
real videos.
"""

import json
import logging
import shutil
from pathlib import Path

import pytest

from pipeline.checkpoints import model_file
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.locate import find_results
from pipeline.stages.evaluate import Stage as Evaluate
from pipeline.stages.train import Stage as Train
from tests.feeding.frames_toy import RECIPE, build, recipe
from tests.search import asked
from tests.trees import tree


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Artefact]:
    return build(tmp_path_factory.mktemp("toy"))


def train(inputs: dict, out: Path, values: dict = RECIPE, read: str = "tensors", **options) -> dict:
    given = dict.fromkeys(Train.needs) | {
        "annotations": inputs["annotations"],
        read: inputs.get(read),
    }
    given["init"] = inputs.get("init")
    chosen = Train.Options(**{"recipe": values, "threads": 1, "tensorboard": False} | options)
    return run(Train(chosen, given, out), "train", Settings(jobs=1))


def evaluate(
    inputs: dict, checkpoints: list[Path], out: Path, read: str = "tensors", most: float = 0.05
) -> dict:
    made = [Artefact("checkpoint", path, str(path), str(path), path.name) for path in checkpoints]
    given = dict.fromkeys(Evaluate.needs) | {
        "annotations": inputs["annotations"],
        read: inputs[read],
    }
    return run(
        Evaluate(Evaluate.Options(), given | {"checkpoints": made}, out),
        "evaluate",
        Settings(jobs=1, max_failures=most),
    )


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


def test_model_of_frames_learns_and_is_evaluated(inputs, tmp_path):
    train(inputs, tmp_path / "train", recipe(epochs=10))
    manifest = evaluate(inputs, [tmp_path / "train"], tmp_path / "results")

    assert losses(tmp_path / "train")[-1] < 0.7 * losses(tmp_path / "train")[0]
    assert manifest["summary"]["train"]["none"]["t2v_R5"] > 100 * 5 / 12


def test_every_source_trains_the_same_way(inputs, tmp_path):
    for source in ("tensors", "store", "videos"):
        train(inputs, tmp_path / source, read=source)

    first = losses(tmp_path / "tensors")
    assert losses(tmp_path / "store") == pytest.approx(first, rel=1e-4)
    assert losses(tmp_path / "videos") == pytest.approx(first, rel=1e-2)  # no JPEG in between


def test_equal_runs_have_equal_bytes_whatever_the_threads(inputs, tmp_path):
    train(inputs, tmp_path / "a", loader_threads=1)
    train(inputs, tmp_path / "b", loader_threads=3, save_steps=1)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_log_says_what_share_of_the_time_was_spent_waiting_for_data(inputs, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="tvrkit"):
        train(inputs, tmp_path)

    lines = [r.getMessage() for r in caplog.records if "epoch 2/2" in r.getMessage()]
    assert len(lines) == 1 and "waiting for data " in lines[0] and "%" in lines[0]


def test_log_has_the_temperature_and_the_rate_of_every_group(inputs, tmp_path):
    rules = [{"match": "bias", "weight_decay": 0}, {"match": r"^clip\.visual", "lr_scale": 0.1}]
    train(inputs, tmp_path, recipe(params=rules))

    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["clip.logit_scale"] == pytest.approx(2.66, abs=0.1)
    assert sorted({round(rate, 8) for rate in line["lr"]}) == [1e-4, 1e-3]


def test_training_starts_from_the_clip_of_another_model(inputs, tmp_path):
    train(inputs, tmp_path / "first")
    other = RECIPE | {"options": RECIPE["options"] | {"temporal": "sequence", "temporal_layers": 1}}
    start = inputs | {"init": Artefact("checkpoint", tmp_path / "first", "f", "c", "first")}

    with pytest.raises(DataError, match="weights do not fit") as caught:
        train(start, tmp_path / "strict", other)
    frozen = {"freeze": {"match": r"^clip\."}, "init": {"take": "clip"}}
    train(start, tmp_path / "second", other | {"train": RECIPE["train"] | frozen})

    assert "take: clip" in caught.value.fix
    before, after = (model_file.load_model(tmp_path / name)[0] for name in ("first", "second"))
    weight = "clip.visual.transformer.resblocks.3.mlp.c_fc.weight"
    rounded = before.state_dict()[weight].half().float()  # CenterCLIP rounds what it starts from
    assert after.state_dict()[weight].equal(rounded)


def test_weights_that_a_pattern_names_are_taken_and_must_all_be_there(inputs, tmp_path):
    train(inputs, tmp_path / "first")
    start = inputs | {"init": Artefact("checkpoint", tmp_path / "first", "f", "c", "first")}
    other = RECIPE | {"options": RECIPE["options"] | {"temporal": "lstm"}}

    train(
        start,
        tmp_path / "second",
        other | {"train": RECIPE["train"] | {"init": {"match": "^clip"}}},
    )
    for match, words in (
        ("^temporal", "none of the weights"),
        ("temporal|clip", "do not fit: missing: temporal"),
    ):
        with pytest.raises(DataError, match=words):
            train(
                start,
                tmp_path / "third",
                other | {"train": RECIPE["train"] | {"init": {"match": match}}},
            )


def test_only_what_the_model_reads_is_wired(inputs):
    of_frames = Train.wanted(Train.Options(recipe=RECIPE))
    of_words = Train.wanted(
        Train.Options(recipe=RECIPE | {"model": "dual_encoding", "options": {}})
    )

    assert set(of_frames) == {"tensors", "store", "videos", "annotations", "init"}
    assert set(of_words) == {
        "tensors",
        "features",
        "annotations",
        "vocab",
        "tags",
        "word_vectors",
        "init",
    }


def test_frames_that_nothing_provides_are_asked_for(inputs, tmp_path):
    with pytest.raises(ConfigError, match="no frames to read") as caught:
        train(inputs, tmp_path, read="features")

    assert "tensors step" in caught.value.fix


def test_unreadable_video_is_left_out_of_training_and_evaluation(inputs, tmp_path, caplog):
    files = shutil.copytree(inputs["videos"].path, tmp_path / "videos")
    for name in ("train3", "test5"):
        (files / f"{name}.mp4").write_bytes(b"not a video at all")
    fewer = inputs | {"videos": Artefact("video_files", files, "v", "v")}

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        train(fewer, tmp_path / "train", recipe(drop_last=False), read="videos")
        evaluate(fewer, [tmp_path / "train"], tmp_path / "results", read="videos", most=0.1)

    assert caplog.text.count("1 of 12 videos have no readable frames") == 2
    metrics = json.loads((tmp_path / "results" / "train" / "metrics.json").read_text())
    assert (metrics["videos"], metrics["left_out"]) == (11, 1)


def test_search_answers_a_sentence_and_a_video_file(inputs, tmp_path):
    train(inputs, tmp_path / "train", recipe(epochs=10))
    evaluate(inputs, [tmp_path / "train"], tmp_path / "results")
    model, info = model_file.load_model(tmp_path / "train")
    folder = find_results(tmp_path / "train" / "checkpoints" / "best.pt", None)

    hits = asked.search_text(model, info, folder, "something red is everywhere", 12)
    own = asked.search_video(model, folder, str(inputs["videos"].path / "test0.mp4"), None, 12)
    known = asked.search_video(model, folder, "test0", None, 12)

    assert sorted(hit.label for hit in hits) == sorted(f"test{n}" for n in range(12))
    assert [hit.label for hit in own][:3] == [hit.label for hit in known][:3]
    assert info.text_encoder.unknown_words("gibberish xqzzt") == []
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="frames cannot be read"):
        asked.search_video(model, folder, str(tmp_path / "bad.mp4"), None, 12)
