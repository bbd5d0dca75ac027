"""The learning rate of each step, and what follows from each validation: best, cut, reload,
stop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.recipes.options import ScheduleOptions


@dataclass(frozen=True)
class Judgement:
    """What a validation means. The trainer acts on it; nothing here ends the program."""

    is_best: bool
    reload_best: bool = False
    stop: bool = False


class Schedule:
    """Learning rate by step (curves) and by validation (plateau), with the patience of early
    stopping.

    lr: the rate before any factor. horizon_steps: steps the curve spans; beyond it the last value
    stays.
    stop_after: validations in a row without a best after which `judge` says stop (tested before a
    cut, as published). Source of plateau: dongYoun2/dual-encoding-system: run_hybrid.py; with
    `on_each` and `wait_since: cut` danieljf24/hybrid_space: trainer.py
    (docs/specs/training-loop.md, section 2.4).
    """

    def __init__(
        self,
        options: ScheduleOptions,
        *,
        lr: float,
        horizon_steps: int,
        tie: str = "first",
        stop_after: int | None = None,
    ):
        self._options, self._tie, self._stop_after = options, tie, stop_after
        self.warmup_steps = 0.0 if options.name == "plateau" else options.warmup * horizon_steps
        self._curve = _CURVES[options.name](lr, options.floor, self.warmup_steps, horizon_steps)
        self._scale = 1.0
        self.best = -math.inf
        self.patience = 0
        self._since_cut = 0

    def lr(self, step: int) -> float:
        """Return the rate of the step after `step` done ones, before the factors of parameter
        groups.
        """
        return self._curve(step) * self._scale

    def judge(self, score: float) -> Judgement:
        """Take note of a validation's score (higher is better) and say what follows."""
        plateau = self._options if self._options.name == "plateau" else None
        self._since_cut += 1
        self._scale *= plateau.on_each if plateau else 1.0
        if score > self.best or (score == self.best and self._tie == "last"):
            self.best, self.patience = score, 0
            self._scale *= plateau.on_best if plateau else 1.0
            return Judgement(is_best=True)
        self.patience += 1
        if self.patience == self._stop_after:
            return Judgement(is_best=False, stop=True)
        if plateau and self._is_cut_due(plateau):
            self._scale *= plateau.factor
            self._since_cut = 0
            return Judgement(is_best=False, reload_best=plateau.reload_best)
        return Judgement(is_best=False)

    def _is_cut_due(self, plateau: ScheduleOptions) -> bool:
        if plateau.wait_since == "cut":
            return self._since_cut >= plateau.wait
        return self.patience % plateau.wait == 0

    def state(self) -> dict[str, float | int]:
        """Return what `restore` needs."""
        return {
            "scale": self._scale,
            "best": self.best,
            "patience": self.patience,
            "since_cut": self._since_cut,
        }

    def restore(self, state: dict[str, float | int]) -> None:
        self._scale, self.best, self.patience = state["scale"], state["best"], state["patience"]
        self._since_cut = state["since_cut"]


Curve = Callable[[int], float]


def _cosine(lr: float, floor: float, warmup: float, horizon: int) -> Curve:
    """Source: mzhaoshuai/CenterCLIP: the schedule of its AdamW."""

    def rate(progress: float) -> float:
        return max(floor, lr / 2 * (1 + math.cos(math.pi * progress)))

    return _after_warmup(lr, floor, warmup, horizon, rate)


def _linear(lr: float, floor: float, warmup: float, horizon: int) -> Curve:
    return _after_warmup(
        lr, floor, warmup, horizon, lambda progress: max(floor, lr * (1 - progress))
    )


def _constant(lr: float, floor: float, warmup: float, horizon: int) -> Curve:
    return _after_warmup(lr, floor, warmup, horizon, lambda progress: lr)


def _after_warmup(
    lr: float, floor: float, warmup: float, horizon: int, rate: Callable[[float], float]
) -> Curve:
    def curve(step: int) -> float:
        if step <= warmup and warmup > 0:
            return min(lr, step / warmup * (lr - floor) + floor)
        return rate(min(1.0, (step - warmup) / (horizon - warmup)))

    return curve


def _bert_cosine(lr: float, floor: float, warmup: float, horizon: int) -> Curve:
    """The first step has rate 0, and the rate falls from 1 to 0.976 where a warm-up of 0.1
    ends, as published.

    The published horizon may be shorter than the run and the rate then rises again; here it
    stays (docs/specs/training-loop.md, section 4).
    """

    def curve(step: int) -> float:
        progress = min(1.0, step / horizon)
        if step < warmup:
            return max(floor, lr * step / warmup)
        return max(floor, lr * (1 + math.cos(math.pi * progress)) / 2)

    return curve


def _flat(lr: float, floor: float, warmup: float, horizon: int) -> Curve:
    return lambda step: lr


_CURVES = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "bert_cosine": _bert_cosine,
    "plateau": _flat,
}
