"""In which groups parameters train, and by which rule: Adam, AdamW (torch's, fused) and BertAdam.

Also the moving average of the weights and the limits of the temperature, which act on parameters
after a step.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pipeline.errors import ConfigError
from pipeline.recipes.options import (
    EmaOptions,
    OptimizerOptions,
    ParameterRule,
    TemperatureOptions,
)

# steps after which 1 - beta ** steps is 1 in double precision, for any beta up to 0.9999999
_FOREVER = 1e9


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    rules: list[ParameterRule],
    weight_decay: float,
    strict: bool = True,
) -> list[dict]:
    """Groups of trainable parameters that share lr_scale and weight_decay, in order of first
    appearance.

    Each: {"params", "names", "lr_scale", "weight_decay"}. A rule sets the keys it names; the first
    rule wins per key.
    strict: ConfigError for a rule that matches no parameter (a misspelt name would otherwise train
    it at full rate).
    """
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    unused = [
        rule.match
        for rule in rules
        if not any(re.search(rule.match, name) for name, _ in trainable)
    ]
    if unused and strict:
        raise ConfigError(
            f"no trainable parameter matches {', '.join(map(repr, unused))}",
            where="train.params",
            fix=(
                f"Names are like {', '.join(name for name, _ in trainable[:3])}. Correct or remove"
                " the rule."
            ),
        )
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in trainable:
        matching = [rule for rule in rules if re.search(rule.match, name)]
        scale = next((rule.lr_scale for rule in matching if rule.lr_scale is not None), 1.0)
        decay = next(
            (rule.weight_decay for rule in matching if rule.weight_decay is not None), weight_decay
        )
        group = groups.setdefault(
            (scale, decay), {"params": [], "names": [], "lr_scale": scale, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build(groups: list[dict], options: OptimizerOptions) -> torch.optim.Optimizer:
    """Return the optimizer over groups of `parameter_groups`; their learning rate is set by
    `set_lr` before each step.
    """
    groups = [{k: v for k, v in group.items() if k != "names"} for group in groups]
    settings = {"lr": options.lr, "betas": options.betas, "eps": options.eps}
    if options.name == "bertadam":
        return BertAdam(groups, **settings)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=options.lr, eps=options.eps, foreach=True)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(groups, fused=True, **settings)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decoupled decay m / (sqrt(v) + eps) + weight_decay * p.

    The published class also holds the schedule and clips each tensor; here both are the trainer's
    (ScheduleOptions.name = bert_cosine, OptimizerOptions.clip_per_tensor). torch's fused AdamW is
    used with a number of steps so large that its bias corrections are exactly 1: one pass over
    memory instead of ten, the same updates to rounding. Source: the BERT optimizer as in
    foolwood/DRL: tvr/models/optimization.py.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            exact = [p.dtype == torch.float16 or not p.ndim for p in params]
            self._update_step_by_step(
                [p for p, is_exact in zip(params, exact, strict=True) if is_exact], group
            )
            self._update(
                [p for p, is_exact in zip(params, exact, strict=True) if not is_exact], group
            )

    def _moments(self, params: list[Tensor]) -> list[list[Tensor]]:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
        return [[self.state[p][name] for p in params] for name in "mv"]

    def _update_step_by_step(self, params: list[Tensor], group: dict) -> None:
        """Each result rounded as published. In float16 a fused kernel rounds only what it stores,
        and second moments that underflow would still divide the step they are made in
        (docs/specs/drl.md, section 9). A temperature of 4.6 moves by a few of the last float32
        digits in a step: another order of sums is another step.
        """
        if not params:
            return
        m, v = self._moments(params)
        (first, second), decay, grads = (
            group["betas"],
            group["weight_decay"],
            [p.grad for p in params],
        )
        torch._foreach_mul_(m, first)
        torch._foreach_add_(m, grads, alpha=1 - first)
        torch._foreach_mul_(v, second)
        torch._foreach_addcmul_(v, grads, grads, value=1 - second)
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, group["eps"])
        update = torch._foreach_div(m, root)
        if decay:
            torch._foreach_add_(update, params, alpha=decay)
        torch._foreach_mul_(update, group["lr"])
        torch._foreach_sub_(params, update)

    def _update(self, params: list[Tensor], group: dict) -> None:
        if not params:
            return
        m, v = self._moments(params)
        steps = [torch.full((), _FOREVER, device=p.device) for p in params]
        (first, second), grads = group["betas"], [p.grad for p in params]
        adamw(
            params,
            grads,
            m,
            v,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def clip_per_tensor(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale each gradient whose own norm is larger than `largest` down to it."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(grads)
    factors = [torch.clamp(largest / (norm + 1e-6), max=1.0) for norm in norms]
    torch._foreach_mul_(grads, factors)


class TemperatureLimits:
    """Keep log temperatures within limits after each step; parameters are found by name, none may
    match.
    """

    def __init__(self, model: nn.Module, options: TemperatureOptions):
        self._options = options
        self._found = {
            name: p for name, p in model.named_parameters() if re.search(options.match, name)
        }

    @property
    def values(self) -> dict[str, float]:
        """Those that are single numbers, by name."""
        return {name: p.item() for name, p in self._found.items() if p.numel() == 1}

    @torch.no_grad()
    def apply(self) -> None:
        if self._options.min is None and self._options.max is None:
            return
        for parameter in self._found.values():
            parameter.clamp_(self._options.min, self._options.max)


class Ema:
    """Moving average of all weights: average = moment * average + (1 - moment) * weight.

    Buffers (batch statistics, counters) are copied, not averaged. `weights` is a complete state
    dict.
    """

    def __init__(self, model: nn.Module, options: EmaOptions):
        self._moment = options.moment
        self._parameters = {name for name, _ in model.named_parameters()}
        wide = options.dtype == "float32"
        self.weights = {
            name: (
                value.detach().to(
                    torch.float32 if wide and value.is_floating_point() else value.dtype, copy=True
                )
            )
            for name, value in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights after a step in."""
        current = model.state_dict()
        names = [name for name in self.weights if name in self._parameters]
        average = [self.weights[name] for name in names]
        torch._foreach_lerp_(
            average,
            [current[n].to(a.dtype) for n, a in zip(names, average, strict=True)],
            1 - self._moment,
        )
        for name in self.weights.keys() - self._parameters:
            self.weights[name].copy_(current[name])

    def restore(self, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            self.weights[name].copy_(value)
