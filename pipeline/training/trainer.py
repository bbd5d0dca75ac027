"""The one training loop: epochs, steps, validation, best weights, early stop, and resuming at any
step.

Everything the next step depends on is either in `checkpoints/last.pt` or a function of it: the
order of an epoch of (seed, epoch), all random numbers of (seed, step, rank). So a run that was
killed anywhere continues bit for bit (on a CPU, with the same number of threads), and what it
writes does not differ from an uninterrupted run.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import __version__, log, processes
from pipeline.checkpoints import model_file, partial
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.toolkit_file import TRAINING, VERSION
from pipeline.core import stop
from pipeline.errors import ConfigError, Interrupted
from pipeline.feeding.loader import Batch, TrainBatches
from pipeline.memory import naming_knobs
from pipeline.recipes.options import TrainOptions
from pipeline.recipes.recipe import Recipe
from pipeline.training import moments, optimizer
from pipeline.training.progress import (
    Conduct,
    Summary,
    TrainingProgress,
    remove_stale,
    resumable,
    torch_settings,
)
from pipeline.training.record import Board, Clock, Console, MetricsFile
from pipeline.training.schedule import Schedule
from pipeline.training.step import NotFinite, Stepper, seed_step

Validate = Callable[
    [nn.Module], dict[str, float]
]  # scores by the names of options.METRICS, and any others


class Trainer:
    """Trains `model` on `batches`; `validate(model)` gives the scores of the selection split (None:
    keep the last).

    Writes `folder`/checkpoints/{last,best}.pt and metrics.jsonl; continues checkpoints/last.pt of
    the same identity.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        batches: TrainBatches,
        validate: Validate | None,
        folder: Path,
        conduct: Conduct,
    ):
        self._recipe, self._options, self._batches, self._conduct = (
            recipe,
            recipe.train,
            batches,
            conduct,
        )
        self._validate, self._folder, self._world = validate, Path(folder), conduct.world
        self.model = _synchronised(model, self._options, conduct).to(conduct.device)
        self._still = optimizer.freeze(self.model, self._options.freeze)
        self._stepper = Stepper(
            self.model, self._wrapped(), self._options, conduct.device, self._world
        )
        self.steps_per_epoch = -(-len(batches) // self._options.accumulation)
        self.total_steps = self.steps_per_epoch * self._options.epochs
        horizon = (
            self._options.schedule.horizon_epochs or self._options.epochs
        ) * self.steps_per_epoch
        self._schedule = Schedule(
            self._options.schedule, lr=self._options.optimizer.lr, horizon_steps=horizon,
            tie=self._options.tie, stop_after=self._options.stop_after,
        )  # fmt: skip
        self._progress = TrainingProgress()
        self._before = resumable(self._folder, conduct.identity)
        recorded = self._before["threads"] if self._before else None
        self.threads = recorded or conduct.threads or torch.get_num_threads()

    @property
    def last_path(self) -> Path:
        return self._folder / "checkpoints" / "last.pt"

    @property
    def best_path(self) -> Path:
        return self._folder / "checkpoints" / "best.pt"

    def describe(self) -> dict:
        """What was made of the options here: batch, steps, warm-up, precision, parameters; for
        config.yaml.
        """
        groups = self._stepper.groups
        return {
            "global_batch": self._batches.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            "warmup_steps": round(self._schedule.warmup_steps, 3),
            "precision": self._stepper.precision,
            "device": self._conduct.device.type,
            "processes": self._world.size,
            "threads": self.threads,
            "parameters": {
                "all": sum(p.numel() for p in self.model.parameters()),
                "trained": sum(p.numel() for g in groups for p in g["params"]),
            },
            "groups": [
                {
                    "lr_scale": g["lr_scale"],
                    "weight_decay": g["weight_decay"],
                    "tensors": len(g["params"]),
                }
                for g in groups
            ],
        }

    def fit(self) -> Summary:
        """Train to the end (from where the last run stopped) and return how it ended.

        Raises Interrupted after a stop signal (the state is saved), DataError for a loss that is
        not finite.
        """
        with contextlib.ExitStack() as stack:
            options = self._options
            stack.enter_context(
                torch_settings(
                    self._conduct.device,
                    self.threads,
                    options.deterministic,
                    options.detect_anomaly,
                )
            )
            length = self._resume()
            self._clock = Clock(self.total_steps - self._progress.step)
            self._console = Console(
                self._conduct.name, options.epochs, self._clock, silent=not self._world.is_first
            )
            self._saved_at = time.monotonic()
            self._metrics = self._board = None
            if self._world.is_first:
                self._metrics = MetricsFile(self._folder / "metrics.jsonl", length)
                stack.callback(self._metrics.close)
                self._board = Board(self._conduct.board, self._progress.step)
                stack.callback(self._board.close)
            stack.enter_context(naming_knobs(*self._memory()))
            while not self._progress.done:
                self._epoch()
            processes.barrier(self._world)
        p = self._progress
        return Summary(p.epoch, p.step, p.skipped, p.best)

    def _memory(self) -> tuple[str, str]:
        """What a step works on, and what would make it less."""
        inputs, options, n = (
            self.model.inputs,
            self._options,
            self._batches.batch_size // self._world.size,
        )
        frames = (
            f", each with {inputs.frames} frames of {inputs.size} pixels" if inputs.frames else ""
        )
        knobs = f"Lower train.batch_size ({options.batch_size}), or use more processes (torchrun)"
        if self._stepper.precision == "float32" and self._conduct.device.type == "cuda":
            knobs += "; set train.precision: bfloat16"
        if hasattr(self._recipe.options, "recompute"):
            knobs += "; set options.recompute: true (a third more time)"
        return (
            f"{self._conduct.name}: {n} captions at once on {self._conduct.device}{frames}",
            (
                f"{knobs}. For contrastive losses train.accumulation is not the same as a larger"
                " batch. If it was a validation: train.evaluation.batch_size"
                f" ({options.evaluation.batch_size})."
            ),
        )

    def _epoch(self) -> None:
        """The rest of the epoch under way, its validation and its checkpoint."""
        p, evaluation = self._progress, self._options.evaluation
        self._train_mode()
        with contextlib.closing(self._batches.epoch(p.epoch, p.position)) as batches:
            waited = self._waited(batches)
            while p.position < len(self._batches) and not p.done:
                self._step(waited)
                self._between_steps()
        if p.done:
            return
        p.epoch, p.position = p.epoch + 1, 0
        last = p.epoch == self._options.epochs
        due = last or (evaluation.every_epochs and p.epoch % evaluation.every_epochs == 0)
        scores = self._judge() if due else {}
        p.done = p.done or last
        self._console.epoch(
            p.epoch, p.epoch_loss / max(p.epoch_steps, 1), self._score_words(scores)
        )
        p.epoch_loss, p.epoch_steps = 0.0, 0
        if self._options.keep_epochs:
            self._write_model(
                f"epoch-{p.epoch}.pt", self.model.state_dict(), {"epoch": p.epoch, "step": p.step}
            )
        self._save()

    def _step(self, batches: Iterator[Batch]) -> None:
        p, options = self._progress, self._options
        count, start = min(options.accumulation, len(self._batches) - p.position), time.monotonic()
        seed_step(options.seed, p.step, self._world.rank if options.seed_scope == "per_rank" else 0)
        try:
            result = self._stepper(batches, count, self._schedule.lr(p.step))
        except NotFinite as fault:
            self._skip_or_stop(fault)
            result = None
        p.position, p.step = p.position + count, p.step + 1
        self._clock.step(count * self._batches.batch_size, time.monotonic() - start)
        if result:
            for name, value in (result.terms | {"grad_norm": result.grad_norm}).items():
                p.sums[name] = p.sums.get(name, 0.0) + value
            p.summed += 1
            p.epoch_loss, p.epoch_steps = p.epoch_loss + result.terms["loss"], p.epoch_steps + 1
            self._console.step(p.epoch + 1, p.position, len(self._batches), result.terms["loss"])
        if p.step % options.log_every == 0 or p.step == 1:
            self._log_step()

    def _skip_or_stop(self, fault: NotFinite) -> None:
        p = self._progress
        error = fault.stopped(
            p.step + 1,
            p.epoch + 1,
            str(self.last_path) if self.last_path.exists() else "not saved yet",
        )
        p.skipped += 1
        if self._options.non_finite == "stop" or p.skipped > self._options.skip_limit:
            raise error from fault
        log.warning(
            f"{self._conduct.name}: {error.what}. Step skipped ({p.skipped} of"
            f" {self._options.skip_limit})"
        )

    def _between_steps(self) -> None:
        """What may happen after any step: validation, a stop request, a checkpoint by time or by
        count.
        """
        p, evaluation = self._progress, self._options.evaluation
        if (evaluation.every_steps and p.step % evaluation.every_steps == 0) or (
            evaluation.at_first_step and p.step == 1
        ):
            self._judge()
            self._train_mode()
            if p.done:
                self._save()
                return
        if processes.any_of(stop.requested(), self._world, self._conduct.device):
            self._save()
            raise Interrupted(
                f"interrupted after step {p.step:,} of {self.total_steps:,}; everything up to it is"
                " kept",
                where=self._conduct.name,
                fix="Run the same command again to go on.",
            )
        by_count = self._conduct.save_steps and p.step % self._conduct.save_steps == 0
        if by_count or time.monotonic() - self._saved_at > self._conduct.save_seconds:
            self._save()

    def _log_step(self) -> None:
        p = self._progress
        if p.summed and self._world.is_first:
            values = {
                name: total / p.summed for name, total in p.sums.items()
            } | self._stepper.temperatures
            rates = [group["lr"] for group in self._stepper.optimizer.param_groups]
            line = {"event": "train", "epoch": p.epoch + 1, "step": p.step} | values | {"lr": rates}
            self._metrics.append(line | ({"skipped": p.skipped} if p.skipped else {}))
            named_rates = {f"lr_{n}": rate for n, rate in enumerate(rates)}
            self._board.add("train", values | named_rates | self._clock.rates, p.step)
        p.sums, p.summed = {}, 0
        self._clock.reset()

    def _judge(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best, act on what follows; the scores judged
        by.
        """
        p = self._progress
        processes.share_buffers(self.model, self._world)
        scores = processes.from_first(
            self._scores(), self._world
        )  # every rank encodes its share, rank 0 counts
        if scores is None:  # nothing to select by: the last weights are the ones to keep
            self._keep_best("raw", {})
            return {}
        name, chosen = max(reversed(scores.items()), key=lambda item: item[1][self._options.select])
        score = chosen[self._options.select]
        verdict = self._schedule.judge(score)
        if verdict.is_best:
            self._keep_best(name, chosen)
        self._record_validation(scores, name if verdict.is_best else "")
        if verdict.reload_best:
            processes.barrier(self._world)
            self.model.load_state_dict(partial.read_model(self.best_path)["weights"])
        p.done = p.done or verdict.stop
        return chosen

    def _scores(self) -> dict[str, dict[str, float]] | None:
        """Scores by model, ema before raw (of equal ones the later is taken), or None without
        validation.
        """
        if self._validate is None:
            return None
        ema = self._stepper.ema
        wanted = self._options.evaluation.models or ("both" if ema else "raw")
        scores = {}
        if ema and wanted in ("ema", "both"):
            raw = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(ema.weights)
            scores["ema"] = self._validate(self.model)
            self.model.load_state_dict(raw)
        if not ema or wanted in ("raw", "both"):
            scores["raw"] = self._validate(self.model)
        return scores

    def _keep_best(self, name: str, scores: dict[str, float]) -> None:
        p = self._progress
        p.best = {"epoch": p.epoch, "step": p.step, "model": name, "scores": scores}
        weights = self._stepper.ema.weights if name == "ema" else self.model.state_dict()
        self._write_model("best.pt", weights, p.best)

    def _record_validation(self, scores: dict[str, dict[str, float]], best: str) -> None:
        if not self._world.is_first:
            return
        p = self._progress
        for name, values in scores.items():
            line = {"event": "validation", "epoch": p.epoch, "step": p.step, "model": name}
            self._metrics.append(line | values | {"best": name == best})
            self._board.add("validation" if name == "raw" else f"validation_{name}", values, p.step)

    def _score_words(self, scores: dict[str, float]) -> str:
        best, select = self._progress.best, self._options.select
        if not scores:
            return ""
        name = select.replace("_r", " R@").replace("R@sum", "Rsum").replace("rsum", "Rsum")
        whose = ", average" if best["model"] == "ema" else ""
        return (
            f"{name} {scores[select]:.1f}  best {best['scores'][select]:.1f} (epoch"
            f" {best['epoch']}{whose})"
        )

    def _write_model(self, name: str, weights: dict[str, Tensor], training: dict) -> None:
        if self._world.is_first:
            info = model_file.ModelInfo(self._recipe, self._conduct.facts, training)
            model_file.write_model(self._folder / "checkpoints" / name, info, weights)

    def _save(self) -> None:
        """Write last.pt: after it, a kill costs only the steps made since."""
        if self._world.is_first:
            length = (
                self._metrics.sync()
            )  # first: a checkpoint never knows of lines that are not on disk
            write_archive(
                self.last_path,
                {
                    "format": TRAINING,
                    "version": VERSION,
                    "toolkit": __version__,
                    "identity": self._conduct.identity,
                    "recipe": self._recipe.resolved(),
                    "global_batch": self._batches.batch_size,
                    "processes": self._world.size,
                    "device": self._conduct.device.type,
                    "threads": self.threads,
                    "metrics_bytes": length,
                    "progress": asdict(self._progress),
                    "schedule": self._schedule.state(),
                    "weights": partial.trained(self.model.state_dict(), self._conduct.facts),
                    **self._stepper.state(partial.left_out(self._conduct.facts)),
                },
            )
        self._saved_at = time.monotonic()

    def _resume(self) -> int:
        """Continue last.pt if it is this training's; returns the length to which metrics.jsonl
        counts.
        """
        state, self._before = self._before, None  # the weights in it are not needed twice
        processes.barrier(self._world)
        if state is None:
            if self._world.is_first:
                remove_stale(self._folder)
            processes.barrier(self._world)
            self._go_on()
            return 0
        if state["global_batch"] != self._batches.batch_size:
            raise ConfigError(
                f"the batch was {state['global_batch']} over {state['processes']} processes, "
                f"now it is {self._batches.batch_size} over {self._world.size}",
                where=self.last_path,
                fix=(
                    "Start with as many processes as before, or remove the checkpoints folder to"
                    " start anew."
                ),
            )
        partial.load_trained(self.model, state["weights"], self._conduct.facts)
        self._stepper.restore(state)
        self._schedule.restore(state["schedule"])
        self._progress = TrainingProgress(**state["progress"])
        p = self._progress
        if not p.done and self._world.is_first:
            log.info(
                f"{self._conduct.name:<20} continues after step {p.step:,} of {self.total_steps:,}"
            )
        return state["metrics_bytes"]

    def _go_on(self) -> None:
        """Start where the training of another program stopped, if there is one."""
        start, p = self._conduct.start, self._progress
        if start is None:
            return
        if start.epoch >= self._options.epochs:
            raise ConfigError(
                f"{self._options.epochs} epochs, and the training to go on from has done"
                f" {start.epoch}",
                where="train.epochs",
                fix=(
                    f"Set train.epochs to more than {start.epoch}, all epochs counted, or leave"
                    " train.init.go_on out."
                ),
            )
        moments.adopt(start, self._stepper, self._options.optimizer.name, "train.init.go_on")
        p.epoch, p.step = start.epoch, start.step
        if self._world.is_first:
            log.info(
                f"{self._conduct.name:<20} goes on after epoch {p.epoch}, step {p.step:,} of"
                f" {self.total_steps:,}"
            )

    def _train_mode(self) -> None:
        self.model.train()
        for module in self._still:
            module.eval()

    def _wrapped(self) -> nn.Module:
        if self._world.size == 1:
            return self.model
        options, device = self._options.distributed, self._conduct.device
        return nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=options.find_unused_parameters,
        )

    def _waited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self._clock.waited(time.monotonic() - start)
            if batch is None:
                return
            yield batch


def _synchronised(model: nn.Module, options: TrainOptions, conduct: Conduct) -> nn.Module:
    """The model with batch statistics over all processes, if the options ask for them."""
    if not options.distributed.sync_batchnorm or conduct.world.size == 1:
        return model
    if conduct.device.type != "cuda":
        raise ConfigError(
            "synchronised batch norm needs GPUs",
            where="train.distributed.sync_batchnorm",
            fix="Set it to false.",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
