"""Where the training of a DGL checkpoint stopped: moments by the names of our parameters."""

from models.centerclip.published_training import stopped_at, with_optimizer
from models.dgl.options import Options
from models.dgl.published import optimizer_state, parameter_order
from models.parts.training_state import Content, Stopped, Weights

_THEIRS = {"m": "next_m", "v": "next_v"}  # BertAdam's names


def companion(name: str) -> str:
    """Return the file that has the optimizer state; "": the checkpoint itself."""
    return ""


def import_training(
    published: Content, side: Content, options: Options, weights: Weights
) -> Stopped | None:
    """Return {"epoch" and "step" that were done, "moments", "scaler"}, or None without a state.

    Moments have the shapes of their parameters. The files share the form of CenterCLIP's.
    """
    if not (published.get("optimizer") or {}).get("state"):
        return None
    groups = published["optimizer"]["param_groups"]
    return stopped_at(int(published["epoch"]), published, optimizer_state(published), groups)


def export_training(
    value: Content, options: Options, weights: Weights, stopped: Stopped
) -> tuple[Content, dict[str, object]]:
    """Return the file's content with the optimizer's state; nothing goes beside it."""
    order = parameter_order(value)
    numbers = {name: n for n, name in enumerate(name for group in order for name in group)}
    states = {}
    for name, moments in stopped["moments"].items():
        named = {_THEIRS.get(key, key): moment for key, moment in moments.items()}
        states[numbers[name]] = named | {"step": stopped["steps"][name]}
    groups = [
        {**settings, "params": [numbers[name] for name in names]}
        for settings, names in zip(stopped["groups"], order, strict=True)
    ]
    optimizer = {"state": dict(sorted(states.items())), "param_groups": groups}
    return with_optimizer(value, stopped, optimizer), {}
