"""Which parameters of a model a recipe trains: the one reading of `train.freeze`."""

import re
from collections.abc import Collection

from torch import nn

from pipeline.errors import ConfigError
from pipeline.recipes.options import FreezeOptions, TrainOptions


def frozen_names(names: Collection[str], options: FreezeOptions | None) -> list[str]:
    """Return those of the parameters' names that `train.freeze` keeps from training, in their
    order.
    """
    if options is None:
        return []
    matching = [name for name in names if re.search(options.match, name)]
    return [
        name
        for name in matching
        if not any(re.search(exception, name) for exception in options.exceptions)
    ]


def freeze(model: nn.Module, options: FreezeOptions | None) -> list[nn.Module]:
    """Switch `requires_grad` off as the options say; call before the optimizer and DDP see the
    model.

    Returns the normalisation layers to keep in eval mode. Raises ConfigError if nothing matches or
    nothing is left to train.
    """
    if options is None:
        return []
    parameters = dict(model.named_parameters())
    frozen = set(frozen_names(parameters, options))
    if not frozen or len(frozen) == len(parameters):
        raise ConfigError(
            "nothing is left to train" if frozen else "no parameter matches",
            where=f"train.freeze: {options.match}",
            fix=f"Names are like {', '.join(list(parameters)[:3])}.",
        )
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not options.norms_in_eval_mode:
        return []
    return [m for prefix, m in model.named_modules() if _is_frozen_norm(prefix, m, frozen)]


def _is_frozen_norm(prefix: str, module: nn.Module, frozen: set[str]) -> bool:
    own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
    return "Norm" in type(module).__name__ and bool(own) and all(name in frozen for name in own)


def unchanging_names(model: nn.Module, options: TrainOptions) -> list[str]:
    """Return names of the weights that no training step changes.

    They are the frozen ones but for temperatures, which are kept within limits all the same.
    """
    frozen = frozen_names(dict(model.named_parameters()), options.freeze)
    return [name for name in frozen if not re.search(options.temperature.match, name)]


def count_parameters(model: nn.Module, options: TrainOptions) -> dict[str, int]:
    """Return {"all", "trained"}: parameters of a model, and those that its recipe trains."""
    parameters = dict(model.named_parameters())
    frozen = set(frozen_names(parameters, options.freeze))
    return {
        "all": sum(p.numel() for p in parameters.values()),
        "trained": sum(p.numel() for name, p in parameters.items() if name not in frozen),
    }
