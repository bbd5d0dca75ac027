"""The train stage, run by the engine on a small corpus whose features tell the videos apart."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.parts.pruning import prunable
from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive import read_archive
from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.core.results.generations import kept_results
from pipeline.core.runner import Settings, run
from pipeline.core.state import digest, read_manifest
from pipeline.errors import ConfigError, DataError, Interrupted
from pipeline.stages.prune import Stage as Prune
from pipeline.stages.train import Stage
from pipeline.text import tag_files, vocab
from pipeline.text.words import count_words
from tests.stages.store_runs import big_file, tensors
from tests.trees import tree

COLOURS = ["red", "green", "blue", "white"]
SHAPES = ["circle", "square", "star"]
SIDE = {"rnn": 8, "kernels": [2], "channels": 8, "dropout": 0.1}
RECIPE = {
    "name": "tiny",
    "model": "dual_encoding",
    "options": {"latent_dim": 16, "video": SIDE, "text": SIDE | {"word_dim": 8}},
    "train": {
        "epochs": 4, "batch_size": 8, "select": "rsum", "log_every": 3, "drop_last": False,
        "optimizer": {"name": "adam", "lr": 1e-2}, "schedule": {"name": "constant", "warmup": 0},
    },
}  # fmt: skip


def recipe(**train) -> dict:
    return RECIPE | {"train": RECIPE["train"] | train}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Artefact]:
    """24 videos, two of each colour and shape; the second ones validate. Features name colour and
    shape in noise.
    """
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows, captions, tags = {}, {"train": [], "val": []}, {}
    for n, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
        for split in captions:
            video_id = f"{split}{n}"
            rows[video_id] = rng.normal(scale=0.1, size=(rng.integers(2, 5), 7)).astype(np.float32)
            rows[video_id][:, [COLOURS.index(colour), 4 + SHAPES.index(shape)]] += 1
            captions[split] += [
                f"{video_id}#{k} a {colour} {shape} {w}"
                for k, w in enumerate(["moves", "is there"])
            ]
            tags[video_id] = {colour: 2, shape: 2}
    (folder / "TextData").mkdir()
    for split, lines in captions.items():
        (folder / "TextData" / f"tiny{split}.caption.txt").write_text("\n".join(lines) + "\n")
    features = big_file(folder / "features", rows)
    tensors({"bigfile": features}, folder / "tensors", features={})
    for name, text in tag_files.files([*COLOURS, *SHAPES], tags).items():
        (folder / name).write_text(text)
    words = vocab.build(
        count_words(line.partition(" ")[2] for line in captions["train"]), min_count=1
    )
    words.save(folder / "vocab.json")
    return {
        "tensors": Artefact("tensors", folder / "tensors", content="tensors"),
        "annotations": dataset_artefact(
            {"type": "caption_files", "root": str(folder)}, "annotations"
        ),
        "vocab": Artefact("vocab", folder / "vocab.json", content="vocab"),
        "tags": Artefact("tags", folder, content="tags"),
        "features": features,
    }


def stage(inputs: dict, out: Path, values: dict = RECIPE, **options) -> Stage:
    given = {name: inputs.get(name) for name in Stage.needs}
    return Stage(
        Stage.Options(**{"recipe": values, "threads": 1, "tensorboard": False} | options),
        given,
        out,
    )


def train(inputs: dict, out: Path, values: dict = RECIPE, **options) -> dict:
    return run(stage(inputs, out, values, **options), "train", Settings(jobs=1))


def test_training_writes_what_the_next_steps_need(inputs, tmp_path):
    manifest = train(inputs, tmp_path, tensorboard=True)

    assert set(tree(tmp_path)) == {
        "checkpoints/best.pt",
        "checkpoints/last.pt",
        "config.yaml",
        "metrics.jsonl",
    }
    assert list((tmp_path / "_state" / "tensorboard").iterdir())
    assert (manifest["summary"]["epochs"], manifest["summary"]["steps"]) == (4, 12)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["recipe"]["train"]["schedule"]["wait"] == 3
    assert (
        config["run"]["global_batch"],
        config["run"]["steps_per_epoch"],
        config["run"]["threads"],
    ) == (8, 3, 1)


def test_model_learns_to_tell_the_videos_apart(inputs, tmp_path):
    train(inputs, tmp_path, recipe(epochs=25))

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if line["event"] == "validation"]
    assert scores[-1]["t2v_r1"] > 5 * 100 / 12  # five times chance among 12 videos
    assert scores[-1]["rsum"] == pytest.approx(scores[-1]["t2v_rsum"] + scores[-1]["v2t_rsum"])


def test_checkpoint_carries_vocabulary_tags_and_sizes(inputs, tmp_path):
    train(inputs, tmp_path, recipe(epochs=1))

    model, info = model_file.load_model(tmp_path)

    assert info.vocabulary.words[:5] == ["<pad>", "<s>", "</s>", "<unk>", "a"]
    assert (info.facts["tags"], info.facts["feature_dim"]) == ([*COLOURS, *SHAPES], 7)
    assert info.facts["inputs"] == {n: a.content for n, a in inputs.items()}
    assert model.inputs.video == "features"


def test_equal_runs_have_equal_bytes_from_tensors_or_from_features(inputs, tmp_path):
    without = {name: value for name, value in inputs.items() if name != "tensors"}

    train(inputs, tmp_path / "a")
    train(inputs, tmp_path / "b", tensorboard=True, save_steps=1)
    train(without, tmp_path / "c")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (
        tmp_path / "c" / "metrics.jsonl"
    ).read_bytes()


def train_until(number: int, step: int, inputs: dict, out: Path, values: dict = RECIPE) -> None:
    """Train in this process, which gets a signal during the given forward pass."""
    import torch

    passes = []

    def count(module, *_) -> None:
        passes.append(1) if type(module).__name__ == "DualEncoding" else None
        if len(passes) == step and passes.append(1) is None:
            os.kill(os.getpid(), number)

    torch.nn.modules.module.register_module_forward_hook(count)
    try:
        train(inputs, out, values, save_steps=2)
    except Interrupted:
        os._exit(130)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_training_that_was_ended_goes_on_to_the_same_bytes(inputs, tmp_path, number, code):
    train(inputs, tmp_path / "whole")
    for step in (5, 3):
        child = multiprocessing.get_context("fork").Process(
            target=train_until, args=(number, step, inputs, tmp_path / "parts")
        )
        child.start()
        child.join()
        assert child.exitcode == code

    train(inputs, tmp_path / "parts")

    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_changed_recipe_starts_anew(inputs, tmp_path):
    train(inputs, tmp_path / "a", recipe(epochs=2, keep_epochs=True))
    train(inputs, tmp_path / "b", recipe(epochs=1))

    train(inputs, tmp_path / "a", recipe(epochs=1))

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_trained_model_is_kept_when_the_recipe_changes_and_found_when_it_comes_back(
    inputs, tmp_path, caplog
):
    caplog.set_level("INFO")
    train(inputs, tmp_path, recipe(epochs=1))
    first = tree(tmp_path)

    train(inputs, tmp_path, recipe(epochs=2))
    (kept,) = kept_results(tmp_path)
    told = caplog.text
    caplog.clear()
    train(inputs, tmp_path, recipe(epochs=1))

    assert "recipe.train.epochs 2 -> 1" not in told
    assert "recipe.train.epochs 1 -> 2" in told
    assert kept.is_complete
    assert tree(tmp_path) == first
    assert "epoch 1/1" not in caplog.text  # nothing was trained again
    assert len(kept_results(tmp_path)) == 1  # the other one now


def test_the_old_model_answers_while_another_training_is_interrupted(inputs, tmp_path):
    train(inputs, tmp_path, recipe(epochs=1))
    before = tree(tmp_path), read_manifest(tmp_path)
    for epochs in (2, 3):  # the second takes the place of the first, which is kept as it is
        ended = multiprocessing.get_context("fork").Process(
            target=train_until,
            args=(signal.SIGTERM, 2, inputs, tmp_path, recipe(epochs=epochs)),
        )
        ended.start()
        ended.join()

    now = {name: value for name, value in tree(tmp_path).items() if not name.startswith("_new")}

    assert (now, read_manifest(tmp_path)) == before
    assert [kept.is_complete for kept in kept_results(tmp_path)] == [False]


def test_changed_recipe_that_was_interrupted_goes_on(inputs, tmp_path):
    train(inputs, tmp_path)
    for _ in range(
        2
    ):  # six steps in three parts of at most three: only a run that goes on gets to the end
        ended = multiprocessing.get_context("fork").Process(
            target=train_until, args=(signal.SIGTERM, 2, inputs, tmp_path, recipe(epochs=2))
        )
        ended.start()
        ended.join()

    state = read_archive(tmp_path / "_new" / "checkpoints" / "last.pt")

    assert state["progress"]["step"] == 4


def test_finished_training_that_is_forced_is_done_again(inputs, tmp_path):
    train(inputs, tmp_path, recipe(epochs=1))
    before = (tmp_path / "checkpoints" / "best.pt").stat().st_mtime_ns, tree(tmp_path)

    run(stage(inputs, tmp_path, recipe(epochs=1)), "train", Settings(jobs=1, force=True))

    assert (tmp_path / "checkpoints" / "best.pt").stat().st_mtime_ns != before[0]
    assert tree(tmp_path) == before[1]


def test_training_starts_from_the_weights_of_another(inputs, tmp_path):
    train(inputs, tmp_path / "first", recipe(epochs=1))
    init = Artefact("checkpoint", tmp_path / "first", content="first")

    train(
        inputs | {"init": init},
        tmp_path / "second",
        recipe(epochs=1, optimizer={"name": "adam", "lr": 1e-30}),
    )

    first, second = (
        model_file.load_model(tmp_path / name)[0].words.weight for name in ("first", "second")
    )
    assert np.allclose(first.detach(), second.detach(), atol=1e-6)


def test_weights_of_another_model_are_refused_as_a_start(inputs, tmp_path):
    train(inputs, tmp_path / "first", recipe(epochs=1))
    init = Artefact("checkpoint", tmp_path / "first", content="first")
    wider = RECIPE | {"options": RECIPE["options"] | {"latent_dim": 32}}

    with pytest.raises(DataError, match="the weights do not fit the model"):
        train(inputs | {"init": init}, tmp_path / "second", wider)


def test_zeros_of_a_pruned_start_stay_zero_and_its_file_stays_small(inputs, tmp_path):
    train(inputs, tmp_path / "first", recipe(epochs=1))
    checkpoints = {"checkpoint": Artefact("checkpoint", tmp_path / "first", content="first")}
    run(
        Prune(Prune.Options(amount=0.5, biases=True), checkpoints, tmp_path / "pruned"),
        "prune",
        Settings(jobs=1),
    )
    start = inputs | {"init": Artefact("checkpoint", tmp_path / "pruned", content="pruned")}

    train(
        start,
        tmp_path / "more",
        recipe(epochs=2, optimizer={"name": "adamw", "lr": 1e-2, "weight_decay": 0.1}),
    )
    train(start, tmp_path / "free", recipe(epochs=2, init={"keep_zeros": False}))

    (before, _), (after, info), (free, _) = (
        model_file.load_model(tmp_path / n) for n in ("pruned", "more", "free")
    )
    zeros = {name: p == 0 for name, p in prunable(before, biases=True).items()}
    assert all(torch.equal(p == 0, zeros[name]) for name, p in prunable(after, biases=True).items())
    assert any(not torch.equal(p, before.state_dict()[name]) for name, p in prunable(after).items())
    assert (
        sum(int((p == 0).sum()) for p in prunable(free).values())
        < sum(int(z.sum()) for z in zeros.values()) / 2
    )
    assert info.facts["pruned"] == {"amount": 0.5, "weights": True, "biases": True}
    sizes = [(tmp_path / n / "checkpoints" / "best.pt").stat().st_size for n in ("more", "free")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(("left_out", "words"), [
    ("vocab", "needs vocabulary"), ("tags", "needs tags|needs a tag|tag"), ("tensors features", "no features to read"),
])  # fmt: skip
def test_missing_input_is_named(inputs, tmp_path, left_out, words):
    given = {name: value for name, value in inputs.items() if name not in left_out.split()}

    with pytest.raises((ConfigError, DataError), match=words) as caught:
        train(given, tmp_path)

    assert caught.value.fix


def test_selection_by_a_split_that_is_not_there_is_refused(inputs, tmp_path):
    with pytest.raises(
        ConfigError, match="there is no split 'test' to select the best weights by, only train, val"
    ):
        train(inputs, tmp_path, recipe(selection_split="test"))


def test_bags_of_the_ancestor_may_count_other_words_than_its_embedding_knows(inputs, tmp_path):
    side = {"rnn": 4, "kernels": [2], "channels": 4}
    options = {"latent_dim": 8, "video": side, "text": side | {"word_dim": 4}}
    ids = {
        "vocab": [
            "<pad>",
            "<start>",
            "<end>",
            "<unk>",
            "a",
            "red",
            "circle",
            "moves",
            "is",
            "there",
            "green",
        ],
        "bow_vocab": ["circle", "square", "star", "blue"],
    }
    for name, words in ids.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps({word: n for n, word in enumerate(words)})
        )
    given = inputs | {"vocab": Artefact("vocab", tmp_path, content="two")}

    train(
        given,
        tmp_path / "out",
        RECIPE | {"model": "hybrid_space", "options": options} | {"name": "two"},
    )

    model, info = model_file.load_model(tmp_path / "out")
    assert (model.words.num_embeddings, model.bag_words) == (11, 4)
    assert info.text_encoder.ids(["a blue circle sings"]) == [[4, 13, 6, 3]]
    assert info.facts["bag"] == {word: n for n, word in enumerate(ids["bow_vocab"])}


def test_word_vectors_are_the_first_embedding(inputs, tmp_path):
    words = vocab.load(inputs["vocab"].path)
    vectors = np.random.default_rng(0).normal(size=(len(words), 5)).astype(np.float32)
    np.save(tmp_path / "pretrained_weight.npy", vectors)
    given = inputs | {
        "word_vectors": Artefact("word_vectors", tmp_path, content=digest(vectors.tolist()))
    }

    train(given, tmp_path / "out", recipe(epochs=1, optimizer={"name": "adam", "lr": 1e-30}))

    model, info = model_file.load_model(tmp_path / "out")
    assert np.allclose(model.words.weight.detach().numpy()[1:], vectors[1:], atol=1e-6)
    assert info.facts["word_dim"] == 5


def test_nan_in_the_features_stops_the_training_and_names_the_videos(inputs, tmp_path):
    rows = {f"train{n}": np.full((2, 7), np.nan, np.float32) for n in range(12)}
    broken = {k: v for k, v in inputs.items() if k != "tensors"} | {
        "features": big_file(tmp_path / "nan", rows)
    }

    with pytest.raises(DataError, match=r"the loss is nan at step 1 .* videos of the batch: train"):
        train(broken, tmp_path / "out", recipe(selection_split="none"))


def test_best_weights_may_be_picked_by_mean_average_precision(inputs, tmp_path):
    train(inputs, tmp_path, recipe(epochs=1, select="map"))

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = next(line for line in lines if line["event"] == "validation")
    assert scores["map"] == pytest.approx(scores["t2v_map"] + scores["v2t_map"])
    assert scores["t2v_r1"] <= scores["t2v_map"] <= 100
    assert scores["best"]
