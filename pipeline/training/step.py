"""One optimizer step: forward, backward, clip, update, limits, moving average; in any precision, on
any rank.
"""

import contextlib
import math
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import processes
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.loader import Batch
from pipeline.processes import World
from pipeline.recipes.options import TrainOptions
from pipeline.training import optimizer
from pipeline.training.micro_batches import InParts

_AUTOCAST = {"bfloat16": torch.bfloat16, "amp": torch.float16}


class NotFinite(Exception):
    """A loss or gradient that is NaN or infinite; `video_ids` are those of this rank's batch."""

    def __init__(self, what: str, video_ids: list[str]):
        super().__init__(what)
        self.video_ids = video_ids

    def explain(self, step: int, epoch: int, last_good: str) -> DataError:
        """Return the error that ends the run: exit code 4, because the batch named is where to look
        first.
        """
        ids = ", ".join(self.video_ids[:8]) + (
            f" and {len(self.video_ids) - 8:,} more" if len(self.video_ids) > 8 else ""
        )
        return DataError(
            f"{self} at step {step:,} (epoch {epoch}); videos of the batch: {ids}",
            where="training",
            fix=(
                f"The last good state is {last_good}. Check these videos, lower optimizer.lr, or"
                " set non_finite: skip."
            ),
        )


@dataclass(frozen=True)
class StepResult:
    """Loss terms of a step, means over its batches and all ranks, and the gradient's norm before
    clipping.
    """

    terms: dict[str, float]
    grad_norm: float


def precision(options: TrainOptions, device: torch.device) -> str:
    """float32, bfloat16 or amp: what `auto` means on this device."""
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if device.type == "cuda" else "float32"


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set every global random generator from (seed, step, rank).

    So a step draws the same numbers whether or not the run was interrupted before it, and no
    generator's state has to
    be saved: it is a function of what is.
    """
    words = np.random.SeedSequence([seed, step, rank]).generate_state(3)
    torch.manual_seed((int(words[0]) << 32 | int(words[1])) & (2**63 - 1))
    np.random.seed(words[2])
    random.seed(int(words[2]))


class Stepper:
    """Makes steps. `model` maps a batch of tensors to named losses; `forward` is the same model or
    DDP around it. With `micro_batch` no DDP is needed: the gradients are averaged here.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: nn.Module,
        options: TrainOptions,
        device: torch.device,
        world: World,
    ):
        self._model = model
        self._forward = forward
        self._options = options
        self._device = device
        self._world = world
        explicit = "params" in options.model_fields_set
        self.groups = optimizer.parameter_groups(
            model.named_parameters(),
            options.params,
            options.optimizer.weight_decay,
            strict=explicit,
        )
        self.optimizer = optimizer.build(self.groups, options.optimizer)
        self.precision = precision(options, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "amp")
        self.ema = optimizer.Ema(model, options.ema) if options.ema else None
        self._limits = optimizer.TemperatureLimits(model, options.temperature)
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._is_checked = world.size == 1 or options.distributed.find_unused_parameters

    def __call__(self, batches: Iterator[Batch], count: int, lr: float) -> StepResult:
        """Take `count` batches and make one step at rate `lr`. Raises NotFinite before the weights
        change.
        """
        keep_buffers = self._options.non_finite == "skip"
        buffers = (
            {name: b.clone() for name, b in self._model.named_buffers()} if keep_buffers else {}
        )
        self.optimizer.zero_grad(set_to_none=True)
        optimizer.set_lr(self.optimizer, lr)
        fault, sums = None, {}
        for n in range(count):
            batch = next(batches)
            if fault:
                # the batches of a step that is given up are taken all the same: they belong to it
                continue
            terms = self._add_gradient(batch, share=1 / count, last=n == count - 1)
            if not math.isfinite(sum(terms.values())):
                fault = NotFinite(f"the loss is {terms['loss']}", batch.video_ids)
            sums = {name: sums.get(name, 0.0) + value / count for name, value in terms.items()}
        if not fault and self._options.micro_batch:
            processes.mean_gradients(self._parameters, self._world)
        if not fault and not self._is_checked:
            self._check_all_used()
        norm = math.nan if fault else self._clip()
        if not fault and not math.isfinite(norm) and not self.scaler.is_enabled():
            fault = NotFinite(
                f"the loss is {sums['loss']:.4g} but the gradient's norm is {norm}", batch.video_ids
            )
        if fault:
            self._undo(buffers)
            raise fault
        self._update()
        return StepResult(sums, norm)

    def _add_gradient(self, batch: Batch, share: float, last: bool) -> dict[str, float]:
        """Add `share` of a batch's gradient to the weights; the terms of its loss, means over
        ranks.
        """
        tensors = batch.to(self._device)
        with self._synchronising(last):
            if self._options.micro_batch:
                parts = InParts(self._model, tensors, self._options.micro_batch, self._autocast)
                losses, backward = parts.losses, parts.backward
            else:
                with self._autocast():
                    losses = self._forward(tensors)
                backward = Tensor.backward
            values = torch.stack([value.detach().float() for value in losses.values()])
            values = processes.mean_of(values, self._world).tolist()
            terms = dict(zip(losses, values, strict=True))
            # the same on every rank, so all go into backward or none
            if math.isfinite(sum(values)):
                backward(self.scaler.scale(losses["loss"] * share))
        return terms

    def _autocast(self) -> contextlib.AbstractContextManager:
        kind = _AUTOCAST.get(self.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def _synchronising(self, last: bool) -> contextlib.AbstractContextManager:
        """DDP averages the gradients of the last batch of a step, and with it those before."""
        if last or self._world.size == 1 or self._options.micro_batch:
            return contextlib.nullcontext()
        return self._forward.no_sync()

    def _check_all_used(self) -> None:
        """Raise ConfigError naming parameters without gradient: DDP would wait for them in the next
        step (docs/specs/training-loop.md, section 4).
        """
        unused = [
            name for name, p in self._model.named_parameters() if p.requires_grad and p.grad is None
        ]
        if unused:
            raise ConfigError(
                f"{len(unused):,} trainable parameters have no part in the loss:"
                f" {', '.join(unused[:5])}",
                where="train.distributed",
                fix=(
                    "Name them in train.freeze, or set find_unused_parameters: true (which costs"
                    " time)."
                ),
            )
        self._is_checked = True

    def _clip(self) -> float:
        self.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads).item()
        largest = self._options.grad_clip
        if largest is not None and math.isfinite(norm) and norm + 1e-6 > largest:
            torch._foreach_mul_(grads, largest / (norm + 1e-6))
        if self._options.optimizer.clip_per_tensor is not None:
            optimizer.clip_per_tensor(self._parameters, self._options.optimizer.clip_per_tensor)
        return norm

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._limits.apply()
        if self.ema:
            self.ema.update(self._model)

    def _undo(self, buffers: dict[str, Tensor]) -> None:
        # a forward pass over a bad batch has already put NaN into the batch statistics
        self.optimizer.zero_grad(set_to_none=True)
        for name, buffer in self._model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])

    @property
    def temperatures(self) -> dict[str, float]:
        """The log temperatures of the model by name, for the log."""
        return self._limits.values

    def state(self, left_out: Collection[str] = ()) -> dict:
        """Everything besides the model's own weights that the next step depends on.

        left_out: weights that no step changes; their averages are they themselves.
        """
        average = (
            {n: v for n, v in self.ema.weights.items() if n not in left_out} if self.ema else None
        )
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": average,
        }

    def restore(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.restore(state["ema"])
