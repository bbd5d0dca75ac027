"""Where another program's training stopped, for one of ours that goes on from there
(train.init.go_on).

`import-checkpoint` writes it beside the weights, best.pt -> best.moments.pt: moments of the
optimizer by our parameter names, loss scale, finished epochs and steps. What is inside published
files is known to `models/<model>/published_training.py`: `companion(name)`, the file beside a
checkpoint that has them ("": it has them itself), and `import_training(published, side, options,
weights)`, None where there are none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.base import Mismatch
from pipeline import registry
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.toolkit_file import VERSION, find_checkpoint, read_format
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pipeline.training.step import Stepper

FORMAT = "tvrkit/moments"
_KINDS = {"adamw": {"exp_avg", "exp_avg_sq", "step"}, "bertadam": {"m", "v"}}
_SHOWN = 4


@dataclass(frozen=True)
class Start:
    """epoch: finished epochs; step: optimizer steps; moments: by parameter; scaler: of the loss, {}
    without one.

    For a file that goes back: groups, settings of the optimizer's; steps, by parameter as the file
    has them; beside, what else lies in the file of the optimizer.
    """

    epoch: int
    step: int
    moments: dict[str, dict[str, Tensor]]
    scaler: dict[str, float]
    groups: list[dict[str, object]] = field(default_factory=list)
    steps: dict[str, object] = field(default_factory=dict)
    beside: dict[str, object] = field(default_factory=dict)


def of_published(file: Path, info: ModelInfo, weights: Mapping[str, Tensor]) -> Start | None:
    """Return where the training of a published file stopped, or None if the file does not say.
    info, weights: as imported.

    Raises DataError for an optimizer of another model.
    """
    module = registry.model_part(info.recipe.model, "published_training")
    if module is None:
        return None
    companion = file.with_name(module.companion(file.name) or file.name)
    if not companion.is_file():
        return None
    side = read_archive(companion, published=True) if companion != file else {}
    published = read_archive(file, published=True) if companion == file else {}
    form = registry.model_part(info.recipe.model, "published")
    published = form.as_published(published) if published else published
    try:
        found = module.import_training(published, side, info.recipe.options, weights)
    except (Mismatch, KeyError, TypeError, AttributeError, ValueError) as error:
        what = (
            error.what
            if isinstance(error, Mismatch)
            else f"not the optimizer state it should be: {error!r}"
        )
        fix = (
            "The file is damaged."
            if companion == file
            else f"Take {companion.name} away to import the weights alone."
        )
        raise DataError(what, where=companion, fix=fix) from error
    return Start(**found) if found else None


def place(weights: Path) -> Path:
    """Return where the moments of a weight file lie."""
    return weights.with_name(f"{weights.stem}.moments.pt")


def write(path: Path, start: Start | None) -> None:
    """Save it; without one, what an earlier import left there goes."""
    if start is None:
        path.unlink(missing_ok=True)
        return
    write_archive(path, {"format": FORMAT, "version": VERSION} | asdict(start))


def read(init: Path | None) -> Start:
    """Return what lies beside the weights that a training run starts from."""
    path = place(find_checkpoint(init)) if init is not None else None
    if path is None or not path.is_file():
        raise ConfigError(
            "no training run to continue: there is no optimizer state beside the weights to start"
            " from",
            where="train.init.go_on" if path is None else path,
            fix=(
                "Import a published checkpoint that has one (CenterCLIP: .pth.tar; CLIP4Clip:"
                " pytorch_opt.bin.N beside pytorch_model.bin.N; Dual Encoding++: .bin.ckpt beside"
                " .bin) and start from that, or leave go_on out."
            ),
        )
    value = read_format(path, FORMAT)
    return Start(**{part.name: value[part.name] for part in fields(Start) if part.name in value})


@dataclass(frozen=True)
class Beside:
    """A published optimizer state: what goes into a file of its own; {}: nothing does."""

    beside: dict[str, object]
    module: ModuleType

    def file_name(self, weights: str) -> str:
        """Return the name of the optimizer's file beside a weight file of this name."""
        return self.module.companion(weights) or f"{weights}.opt"


def export(
    file: Path, value: object, info: ModelInfo, weights: Mapping[str, Tensor]
) -> tuple[object, Beside | None]:
    """Return (content of a published file with the optimizer's state, what lies beside it).

    file: a checkpoint of ours. None: it has no such state. Only an imported checkpoint has one:
    what this toolkit trained has its moments in last.pt.
    """
    module = registry.model_part(info.recipe.model, "published_training")
    if module is None or not place(file).is_file():
        return value, None
    start = read(file)
    if not start.groups:
        return value, None
    value, side = module.export_training(value, info.recipe.options, weights, asdict(start))
    return value, Beside(side, module)


def adopt(start: Start, stepper: "Stepper", optimizer: str, where: Path | str) -> None:
    """Give a new optimizer (`optimizer`: its name in recipes) the moments, and the loss scaler its
    scale.

    Parameters that the other training left alone have none and start anew. Raises DataError naming
    what does not fit.
    """
    trained = {
        n: p
        for group in stepper.groups
        for n, p in zip(group["names"], group["params"], strict=True)
    }
    kind = "adamw" if optimizer == "adam" else optimizer
    wanted = _KINDS.get(kind, set())
    faults = [f"{name}: not trained here" for name in start.moments.keys() - trained.keys()]
    for name in start.moments.keys() & trained.keys():
        state, shape = start.moments[name], trained[name].shape
        if state.keys() != wanted:
            faults.append(f"{name}: {', '.join(sorted(state))} are not the moments of {optimizer}")
        elif any(value.ndim and value.shape != shape for value in state.values()):
            faults.append(f"{name}: not of the shape {tuple(shape)}")
    if faults:
        more = f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise DataError(
            "the optimizer's moments do not fit this training run:"
            f" {'; '.join(sorted(faults)[:_SHOWN])}{more}",
            where=where,
            fix=(
                "Train with the optimizer and the frozen parameters of that training, or leave"
                " train.init.go_on out."
            ),
        )
    for name, state in start.moments.items():
        parameter = trained[name]
        stepper.optimizer.state[parameter] = {
            key: value.to(
                parameter.device, torch.float32 if key == "step" else parameter.dtype, copy=True
            )
            for key, value in state.items()
        }
    if start.scaler and stepper.scaler.is_enabled():
        stepper.scaler.load_state_dict(dict(start.scaler))
