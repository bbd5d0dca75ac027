"""The loop: what it writes, how it goes on after any interruption, when it stops."""

import json
import logging
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive import read_archive
from pipeline.core import stop
from pipeline.errors import ConfigError, DataError, Interrupted
from tests.training import toy

FILES = ("checkpoints/last.pt", "checkpoints/best.pt", "metrics.jsonl")
EVERYTHING = {
    "optimizer": {
        "name": "bertadam",
        "lr": 1e-2,
        "betas": (0.9, 0.98),
        "eps": 1e-6,
        "clip_per_tensor": 1.0,
    },
    "schedule": {"name": "plateau", "on_best": 0.9, "wait": 1, "reload_best": True},
    "ema": {"moment": 0.9},
    "accumulation": 2,
    "evaluation": {"every_steps": 2, "at_first_step": True},
    "non_finite": "skip",
}
RECIPES = {
    "plain": {},
    "everything": EVERYTHING,
    "adamw": {"optimizer": {"name": "adamw", "lr": 1e-2}, "log_every": 3},
    "micro_batch": {
        "micro_batch": 5,
        "freeze": {"match": r"\.norm\.", "norms_in_eval_mode": True},
        "ema": {"moment": 0.9},
        "accumulation": 2,
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def lines(folder: Path, event: str) -> list[dict]:
    values = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for value in values if value["event"] == event]


def in_a_process(work: Callable, *arguments: object) -> int:
    """The exit code of a forked process that does the work; -9 if it was killed."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def send_after(trainer, step: int, number: int) -> None:
    """Let the process get a signal during the given forward pass."""
    passes = []

    def count(*_: object) -> None:
        passes.append(1)
        if len(passes) == step:
            os.kill(os.getpid(), number)

    trainer.model.video.register_forward_hook(count)


def stopped(folder: Path, step: int, train: dict) -> None:
    trainer = toy.trainer(folder, **train)
    send_after(trainer, step, signal.SIGTERM)
    with stop.handling(), pytest.raises(Interrupted, match="everything up to it is kept"):
        trainer.fit()


def killed(folder: Path, step: int, train: dict, save_steps: int | None = 1) -> None:
    trainer = toy.trainer(folder, save_steps=save_steps, **train)
    send_after(trainer, step, signal.SIGKILL)
    trainer.fit()


@pytest.mark.parametrize("name", RECIPES)
def test_run_stopped_in_mid_epoch_ends_as_if_never_stopped(tmp_path, name):
    toy.trainer(tmp_path / "whole", **RECIPES[name]).fit()
    for step in (3, 4):
        assert in_a_process(stopped, tmp_path / "parts", step, RECIPES[name]) == 0

    toy.trainer(tmp_path / "parts", **RECIPES[name]).fit()

    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("save_steps", [1, 4, None])
def test_run_killed_in_mid_epoch_ends_as_if_never_killed(tmp_path, save_steps):
    toy.trainer(tmp_path / "whole").fit()
    for step in (
        8,
        3,
        4,
    ):  # after the checkpoint come lines of metrics.jsonl that the next run must cut off
        assert in_a_process(killed, tmp_path / "parts", step, {}, save_steps) == -9

    toy.trainer(tmp_path / "parts").fit()

    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_every_step_draws_other_random_numbers_and_a_continued_run_the_same(tmp_path):
    def seeds(trainer) -> list[int]:
        found = []
        trainer.model.register_forward_hook(lambda *_: found.append(torch.initial_seed()))
        trainer.fit()
        return found

    whole = seeds(toy.trainer(tmp_path / "whole"))
    in_a_process(stopped, tmp_path / "parts", 7, {})

    assert len(set(whole)) == 15
    assert seeds(toy.trainer(tmp_path / "parts")) == whole[7:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_kills_at_random_moments_lose_nothing(tmp_path, name):
    train = RECIPES[name] | {"epochs": 8}
    start = time.monotonic()
    toy.trainer(tmp_path / "whole", save_steps=2, **train).fit()
    seconds, rng = time.monotonic() - start, random.Random(name)
    for n in range(min(20, int(os.environ.get("TVRKIT_KILLS", "3")))):
        folder = tmp_path / str(n)
        child = multiprocessing.get_context("fork").Process(
            target=killed, args=(folder, 10**9, train, 2)
        )
        child.start()
        child.join(rng.uniform(0, seconds))
        child.kill()
        child.join()

        toy.trainer(folder, **train).fit()

        assert contents(folder) == contents(tmp_path / "whole")


def test_equal_runs_give_equal_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        toy.trainer(tmp_path / name, seed=seed, epochs=1).fit()

    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_finished_run_is_not_trained_again(tmp_path):
    first = toy.trainer(tmp_path).fit()
    before = contents(tmp_path)

    assert toy.trainer(tmp_path).fit() == first
    assert contents(tmp_path) == before


def test_checkpoint_of_another_recipe_is_never_continued(tmp_path):
    toy.trainer(tmp_path, identity="old").fit()
    toy.trainer(tmp_path / "fresh", identity="new", epochs=1).fit()

    toy.trainer(tmp_path, identity="new", epochs=1).fit()

    assert contents(tmp_path) == contents(tmp_path / "fresh")


def test_run_with_another_batch_is_not_continued_silently(tmp_path):
    in_a_process(stopped, tmp_path, 3, {})

    with pytest.raises(ConfigError, match="the batch was 12 over 1 processes, now it is 24"):
        toy.trainer(tmp_path, batch_size=24).fit()


def test_metrics_file_that_was_cut_by_hand_is_noticed(tmp_path):
    in_a_process(stopped, tmp_path, 3, {})
    (tmp_path / "metrics.jsonl").write_text("")

    with pytest.raises(DataError, match="shorter than"):
        toy.trainer(tmp_path).fit()


def test_best_weights_are_those_of_the_best_validation(tmp_path):
    scores = iter([1.0, 3.0, 3.0, 2.0])
    summary = toy.trainer(tmp_path, epochs=4, validate=lambda model: {"rsum": next(scores)}).fit()

    assert summary.best == {"epoch": 2, "step": 10, "model": "raw", "scores": {"rsum": 3.0}}
    assert [line["best"] for line in lines(tmp_path, "validation")] == [True, True, False, False]
    assert model_file.load_model(tmp_path)[1].training["epoch"] == 2


def test_run_stops_when_patience_is_used_up(tmp_path):
    scores = iter([5.0, 4.0, 3.0, 2.0, 9.0])

    summary = toy.trainer(
        tmp_path, epochs=9, stop_after=3, validate=lambda model: {"rsum": next(scores)}
    ).fit()

    assert (summary.epochs, summary.best["epoch"]) == (4, 1)


def test_cut_goes_back_to_the_best_weights(tmp_path):
    scores, seen = iter([5.0, 4.0, 3.0]), []

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"rsum": next(scores)}

    plateau = {"name": "plateau", "wait": 2, "reload_best": True}
    trainer = toy.trainer(tmp_path, epochs=3, schedule=plateau, validate=validate)
    trainer.fit()

    assert all(
        torch.equal(value, seen[0][name]) for name, value in trainer.model.state_dict().items()
    )


def test_average_wins_only_when_it_is_strictly_better(tmp_path):
    scores = iter([2.0, 2.0, 4.0, 3.0])  # ema, raw, ema, raw

    summary = toy.trainer(
        tmp_path, epochs=2, ema={"moment": 0.9}, validate=lambda model: {"rsum": next(scores)}
    ).fit()

    assert summary.best["model"] == "ema"
    assert [(v["model"], v["best"]) for v in lines(tmp_path, "validation")] == [
        ("ema", False), ("raw", True), ("ema", True), ("raw", False),
    ]  # fmt: skip


def test_without_validation_the_last_weights_are_kept(tmp_path):
    trainer = toy.trainer(tmp_path, validate=None)
    trainer.fit()

    model, info = model_file.load_model(tmp_path)

    assert info.training["epoch"] == 3
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.state_dict().values(), trainer.model.state_dict().values(), strict=True
        )
    )


def test_metrics_hold_means_of_the_interval_and_no_times(tmp_path):
    toy.trainer(tmp_path / "each", epochs=1, log_every=1).fit()
    toy.trainer(tmp_path / "all", epochs=1, log_every=4).fit()

    each, (_, last) = lines(tmp_path / "each", "train"), lines(tmp_path / "all", "train")

    assert last["loss"] == pytest.approx(np.mean([line["loss"] for line in each[1:4]]))
    assert last.keys() >= {
        "event",
        "epoch",
        "step",
        "latent_t2v",
        "tags_text",
        "loss",
        "grad_norm",
        "lr",
    }
    assert not {key for key in last if "second" in key or "time" in key}


def poisoned(n_bad: int):
    data = toy.corpus()
    read = data.videos._read
    bad = set(data.video_ids[:n_bad])
    data.videos._read = lambda video_id: (
        np.full_like(read(video_id), np.nan) if video_id in bad else read(video_id)
    )
    return data


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(
        DataError, match=r"the loss is nan at step 1 \(epoch 1\); videos of the batch: .*video"
    ) as caught:
        toy.trainer(tmp_path, data=poisoned(20)).fit()

    assert caught.value.exit_code == 4
    assert "non_finite: skip" in caught.value.fix
    assert not (tmp_path / "checkpoints").exists()


def test_skipped_steps_are_counted_and_leave_finite_weights(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        summary = toy.trainer(tmp_path, data=poisoned(1), non_finite="skip", skip_limit=100).fit()

    assert summary.skipped == caplog.text.count("Step skipped") > 0
    weights = read_archive(tmp_path / "checkpoints" / "last.pt")["weights"]
    assert all(value.isfinite().all() for value in weights.values())
    assert lines(tmp_path, "train")[-1]["skipped"] == summary.skipped


def test_too_many_skipped_steps_stop_the_run(tmp_path):
    with pytest.raises(DataError, match="the loss is nan at step 3"):
        toy.trainer(tmp_path, data=poisoned(20), non_finite="skip", skip_limit=2).fit()


def test_frozen_norms_keep_their_statistics(tmp_path):
    freeze = {"match": "norm|video", "norms_in_eval_mode": True}
    trainer = toy.trainer(tmp_path, epochs=1, freeze=freeze)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    trainer.fit()

    after = trainer.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if not ("norm" in name or "video" in name)
    }


def test_every_epoch_can_be_kept(tmp_path):
    toy.trainer(tmp_path, keep_epochs=True).fit()

    assert [
        model_file.load_model(tmp_path / "checkpoints" / f"epoch-{n}.pt")[1].training["epoch"]
        for n in (1, 2, 3)
    ] == [1, 2, 3]


def test_settings_of_the_process_are_put_back(tmp_path):
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state(),
    )

    toy.trainer(tmp_path, epochs=1).fit()

    assert before[:2] == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    assert torch.get_rng_state().shape == before[2].shape
