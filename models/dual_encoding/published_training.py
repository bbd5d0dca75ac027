"""Where the training of a Dual Encoding++ checkpoint stopped: Adam's moments by our names.

`<name>.bin.ckpt` holds {"epoch" (from 1), "best_<metric>", "patience", "optim_state_dict"}; the
published program never reads it back (docs/specs/dual-encoding.md, section 2.9). Adam numbers the
parameters in the order of their creation, which is ours. Learning rate and patience are not taken
along: the plateau schedule starts anew, at the rate of the recipe.
"""

import torch

from models.base import Mismatch
from models.dual_encoding.options import Options
from models.dual_encoding.published import SIDE_FILE
from models.parts.training_state import Content, Stopped, Weights

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_STATE = {"step", "exp_avg", "exp_avg_sq"}


def companion(name: str) -> str:
    """Return the file beside a checkpoint that has its optimizer state."""
    return f"{name}{SIDE_FILE}"


def import_training(
    published: Content, side: Content, options: Options, weights: Weights
) -> Stopped | None:
    """Return {"epoch" and "step" that were done, "moments", "scaler"}, or None without a state.

    side: the side file; weights: ours, in the order of the model. Raises Mismatch if they are of
    another model.
    """
    states = (side.get("optim_state_dict") or {}).get("state")
    if not states:
        return None
    names = [name for name in weights if not name.endswith(_BUFFERS)]
    moments, faults = {}, []
    for number, state in states.items():
        name = names[number] if number in range(len(names)) else None
        if name is None or state.keys() != _STATE or state["exp_avg"].shape != weights[name].shape:
            faults.append(f"{number} ({name})")
            continue
        moments[name] = dict(state) | {"step": torch.tensor(float(state["step"]))}
    if faults:
        raise Mismatch(
            f"moments of another model: {', '.join(faults[:6])}",
            "Give the optimizer of these weights.",
        )
    step = max(int(state["step"]) for state in moments.values())
    groups = side["optim_state_dict"]["param_groups"]
    return {
        "epoch": int(side["epoch"]),
        "step": step,
        "moments": moments,
        "scaler": {},
        "groups": [{k: v for k, v in group.items() if k != "params"} for group in groups],
        "steps": {names[number]: state["step"] for number, state in states.items()},
        "beside": {k: v for k, v in side.items() if k not in ("epoch", "optim_state_dict")},
    }


def export_training(
    value: Content, options: Options, weights: Weights, stopped: Stopped
) -> tuple[Content, dict[str, object]]:
    """Return the file's content and that of the side file: epoch, best score, patience, optimizer.

    value: as `export_file` gives it; stopped: as `import_training` gave it.
    """
    numbers = {n: i for i, n in enumerate(n for n in weights if not n.endswith(_BUFFERS))}
    states = {
        numbers[name]: dict(moments) | {"step": stopped["steps"][name]}
        for name, moments in stopped["moments"].items()
    }
    groups = [dict(settings) for settings in stopped["groups"]]
    groups[0]["params"] = list(numbers.values())  # the program has one
    optimizer = {"state": states, "param_groups": groups}
    return value, {
        "epoch": stopped["epoch"],
        **stopped.get("beside", {}),
        "optim_state_dict": optimizer,
    }
