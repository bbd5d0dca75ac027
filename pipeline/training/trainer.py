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
from pipeline.feeding.loader import TrainBatches
from pipeline.recipes.freeze import freeze
from pipeline.recipes.options import TrainOptions
from pipeline.recipes.recipe import Recipe
from pipeline.training import micro_batches, moments
from pipeline.training.memory import naming_knobs, step_and_knobs
from pipeline.training.progress import (
    Conduct,
    Summary,
    TrainingProgress,
    resumable,
    set_stale_aside,
    torch_settings,
)
from pipeline.training.record import RunLog
from pipeline.training.schedule import Schedule
from pipeline.training.step import NotFinite, Stepper, StepResult, seed_step

# scores by the names of options.METRICS, and any others
Validate = Callable[[nn.Module], dict[str, float]]


class Trainer:
    """Trains a model on batches and keeps its best weights.

    validate: gives the scores of a model on the selection split; None: keep the last weights.

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
        self._recipe, self._options = recipe, recipe.train
        self._batches, self._validate = batches, validate
        self._folder, self._conduct, self._world = Path(folder), conduct, conduct.world
        self.model = _synchronised(model, self._options, conduct).to(conduct.device)
        self._still_norms = freeze(self.model, self._options.freeze)
        self._batch_norms = micro_batches.batch_norms(self.model, self._still_norms)
        if self._options.micro_batch:
            micro_batches.check(self._batch_norms)
        self._stepper = Stepper(
            model=self.model,
            forward=self._wrapped(),
            options=self._options,
            device=conduct.device,
            world=self._world,
        )
        self.steps_per_epoch = -(-len(batches) // self._options.accumulation)
        self.total_steps = self.steps_per_epoch * self._options.epochs
        horizon_epochs = self._options.schedule.horizon_epochs or self._options.epochs
        self._schedule = Schedule(
            self._options.schedule,
            lr=self._options.optimizer.lr,
            horizon_steps=horizon_epochs * self.steps_per_epoch,
            tie=self._options.tie,
            stop_after=self._options.stop_after,
        )
        self._log = RunLog(
            name=conduct.name,
            epochs=self._options.epochs,
            folder=self._folder,
            board=conduct.board,
            is_first=self._world.is_first,
        )
        self._saved_at = time.monotonic()
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
        """Return what was made of the options here: batch, steps, warm-up, precision, parameters;
        for config.yaml.
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
        options, n_batches = self._options, len(self._batches)
        rank = self._world.rank if options.seed_scope == "per_rank" else 0
        with self._running():
            progress = self._progress
            while not progress.done:
                self._set_train_mode()
                loaded = self._batches.epoch(progress.epoch, progress.position)
                with contextlib.closing(loaded):
                    batches = self._log.clock.time_waiting(loaded)
                    while progress.position < n_batches and not progress.done:
                        started = time.monotonic()
                        count = min(options.accumulation, n_batches - progress.position)
                        seed_step(options.seed, progress.step, rank)
                        try:  # forward, backward, clip, update
                            result = self._stepper(batches, count, self._schedule.lr(progress.step))
                        except NotFinite as fault:
                            self._skip_or_stop(fault)
                            result = None
                        progress.position += count
                        progress.step += 1
                        self._record_step(result, count, time.monotonic() - started)

                        if self._is_validation_due():
                            self._validate_and_keep_best()
                            self._set_train_mode()
                        if progress.done:
                            self._save()
                        elif self._is_stop_requested():
                            self._save()
                            raise self._interrupted()
                        elif self._is_save_due():
                            self._save()
                if progress.done:  # the validation after a step has ended the training
                    break

                progress.epoch += 1
                progress.position = 0
                is_last = progress.epoch == options.epochs
                scores = self._validate_and_keep_best() if self._is_epoch_judged(is_last) else {}
                progress.done = progress.done or is_last
                self._report_epoch(scores)
                if options.keep_epochs:
                    self._keep_epoch()
                self._save()
            processes.barrier(self._world)
        return Summary(progress.epoch, progress.step, progress.skipped, progress.best)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """The state restored, torch set up and everything that is recorded open."""
        options, device = self._options, self._conduct.device
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                torch_settings(device, self.threads, options.deterministic, options.detect_anomaly)
            )
            length = self._resume()
            stack.enter_context(self._log.open(length, self._progress.step, self.total_steps))
            self._saved_at = time.monotonic()
            n_captions = self._batches.batch_size // self._world.size
            doing, knobs = step_and_knobs(
                self._conduct.name,
                self.model,
                self._recipe,
                n_captions,
                self._stepper.precision,
                in_parts=not self._batch_norms,
            )
            stack.enter_context(naming_knobs(doing, knobs))
            yield

    def _is_validation_due(self) -> bool:
        """Return whether the step just made is followed by a validation within its epoch."""
        step, evaluation = self._progress.step, self._options.evaluation
        if evaluation.at_first_step and step == 1:
            return True
        return bool(evaluation.every_steps) and step % evaluation.every_steps == 0

    def _is_epoch_judged(self, is_last: bool) -> bool:
        every = self._options.evaluation.every_epochs
        return is_last or (bool(every) and self._progress.epoch % every == 0)

    def _is_stop_requested(self) -> bool:
        """Return whether any process was asked to stop; all of them learn of it at the same
        step.
        """
        return processes.any_of(stop.requested(), self._world, self._conduct.device)

    def _is_save_due(self) -> bool:
        conduct = self._conduct
        if conduct.save_steps and self._progress.step % conduct.save_steps == 0:
            return True
        return time.monotonic() - self._saved_at > conduct.save_seconds

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"interrupted after step {self._progress.step:,} of {self.total_steps:,}; everything"
            " up to it is kept",
            where=self._conduct.name,
            fix="Run the same command again to go on.",
        )

    def _record_step(self, result: StepResult | None, count: int, seconds: float) -> None:
        """Take a step over `count` batches into the sums; log them every `log_every` steps."""
        progress, log_every = self._progress, self._options.log_every
        self._log.clock.step(count * self._batches.batch_size, seconds)
        if result:
            loss = result.terms["loss"]
            for name, value in (result.terms | {"grad_norm": result.grad_norm}).items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.summed += 1
            progress.epoch_loss += loss
            progress.epoch_steps += 1
            self._log.console.step(progress.epoch + 1, progress.position, len(self._batches), loss)
        if progress.step % log_every == 0 or progress.step == 1:
            self._log_means()

    def _report_epoch(self, scores: dict[str, float]) -> None:
        progress = self._progress
        mean_loss = progress.epoch_loss / max(progress.epoch_steps, 1)
        self._log.console.epoch(progress.epoch, mean_loss, self._score_words(scores))
        progress.epoch_loss, progress.epoch_steps = 0.0, 0

    def _keep_epoch(self) -> None:
        progress = self._progress
        about = {"epoch": progress.epoch, "step": progress.step}
        self._write_model(f"epoch-{progress.epoch}.pt", self.model.state_dict(), about)

    def _skip_or_stop(self, fault: NotFinite) -> None:
        p = self._progress
        error = fault.explain(
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

    def _log_means(self) -> None:
        """Record the means of what was summed since the last line of metrics.jsonl."""
        progress = self._progress
        if progress.summed:
            means = {name: total / progress.summed for name, total in progress.sums.items()}
            values = means | self._stepper.temperatures
            rates = [group["lr"] for group in self._stepper.optimizer.param_groups]
            line = {"event": "train", "epoch": progress.epoch + 1, "step": progress.step}
            skipped = {"skipped": progress.skipped} if progress.skipped else {}
            self._log.append(line | values | {"lr": rates} | skipped)
            named_rates = {f"lr_{n}": rate for n, rate in enumerate(rates)}
            points = values | named_rates | self._log.clock.rates
            self._log.plot("train", points, progress.step)
        progress.sums, progress.summed = {}, 0
        self._log.clock.reset()

    def _validate_and_keep_best(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best, and act on the schedule's verdict.

        Returns the scores that were judged by; {} without validation.
        """
        p = self._progress
        processes.share_buffers(self.model, self._world)
        # every rank encodes its share, rank 0 counts
        scores = processes.from_first(self._scores(), self._world)
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
        progress = self._progress
        for name, values in scores.items():
            line = {
                "event": "validation",
                "epoch": progress.epoch,
                "step": progress.step,
                "model": name,
            }
            self._log.append(line | values | {"best": name == best})
            group = "validation" if name == "raw" else f"validation_{name}"
            self._log.plot(group, values, progress.step)

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
            # first: a checkpoint never knows of lines that are not on disk
            length = self._log.sync()
            write_archive(
                self.last_path,
                {
                    "format": TRAINING,
                    "version": VERSION,
                    "toolkit": __version__,
                    "identity": self._conduct.identity,
                    "recipe": self._recipe.resolve(),
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
                set_stale_aside(self._folder)
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
                f"{self._options.epochs} epochs, but the training run to continue has done"
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
                f"{self._conduct.name:<20} continues after epoch {p.epoch}, step {p.step:,} of"
                f" {self.total_steps:,}"
            )

    def _set_train_mode(self) -> None:
        """All modules train but the frozen normalisation layers that keep their statistics."""
        self.model.train()
        for module in self._still_norms:
            module.eval()

    def _wrapped(self) -> nn.Module:
        if self._world.size == 1:
            return self.model
        if self._options.micro_batch:  # the stepper averages gradients itself
            processes.share_weights(self.model, self._world)
            return self.model
        options, device = self._options.distributed, self._conduct.device
        return nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=options.find_unused_parameters,
        )


def _synchronised(model: nn.Module, options: TrainOptions, conduct: Conduct) -> nn.Module:
    """Return the model with batch statistics over all processes, if the options ask for them."""
    if not options.distributed.sync_batchnorm or conduct.world.size == 1:
        return model
    if conduct.device.type != "cuda":
        raise ConfigError(
            "synchronised batch norm needs GPUs",
            where="train.distributed.sync_batchnorm",
            fix="Set it to false.",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
