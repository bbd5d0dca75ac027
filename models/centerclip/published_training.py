"""Optimizer states of CenterCLIP and CLIP4Clip checkpoints by our parameter names, and back.

The published programs sort parameters into four groups, CLIP or not, decayed or not, and number
them group after group (docs/specs/centerclip.md, section 9). BertAdam calls its moments next_m and
next_v, ours m and v; it clips and schedules itself, so its groups carry those settings too. A loss
scaler's state needs no translation.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.base import Mismatch
from models.centerclip import published as centerclip
from models.centerclip.options import Options
from models.parts.training_state import Content, Stopped, Weights

State = dict[str, dict[str, Tensor]]  # parameter -> {"exp_avg", ...}

_MOMENTS = {"next_m": "m", "next_v": "v"}
_CLIP4CLIP_MODEL = "pytorch_model.bin."
_CLIP4CLIP_OPTIMIZER = "pytorch_opt.bin."
_NOT_CLIP = ("time_embedding", "frame_embedding", "deepcluster")


def parameter_order(names: Iterable[str], clip4clip: bool = False) -> list[list[str]]:
    """Return the published names of all parameters in four groups, as an optimizer numbers them.

    names: of the state dict, in its order, without `module.`. CLIP4Clip has the decayed groups
    first.
    """
    order = [(True, True), (True, False), (False, True), (False, False)]  # (is CLIP, decays)
    if clip4clip:
        order = [(True, True), (False, True), (True, False), (False, False)]
    groups: dict[tuple[bool, bool], list[str]] = {key: [] for key in order}
    for name in names:
        if name == "clip.visual.position_ids" or name.endswith(".spg"):
            continue
        is_clip = "clip." in name and not any(part in name for part in _NOT_CLIP)
        groups[is_clip, "bias" not in name].append(name)
    return list(groups.values())


def companion(name: str) -> str:
    """Return the file that has the optimizer state; "": the checkpoint itself."""
    if not name.startswith(_CLIP4CLIP_MODEL):
        return ""
    return name.replace(_CLIP4CLIP_MODEL, _CLIP4CLIP_OPTIMIZER)


def import_training(
    published: Content, side: Content, options: Options, weights: Weights
) -> Stopped | None:
    """Return {"epoch" and "step" that were done, "moments", "scaler"}, or None without a state.

    published: CenterCLIP's file; side: CLIP4Clip's, {epoch from 0, optimizer_state_dict, loss}.
    Moments have the shapes of their parameters. `beside` holds the loss of CLIP4Clip's file, which
    its program prints when it resumes. Raises Mismatch if they belong to another model.
    """
    optimizer = side.get("optimizer_state_dict") or published.get("optimizer")
    if not optimizer or not optimizer["state"]:
        return None
    epoch = int(side["epoch"]) + 1 if side else int(published["epoch"])
    states = import_optimizer(options, weights, optimizer)
    stopped = stopped_at(epoch, published, states, optimizer["param_groups"])
    beside = {"loss": float(side["loss"])} if "loss" in side else {}
    return stopped | {"beside": beside}


def stopped_at(
    epoch: int,
    published: Mapping[str, object],
    states: Mapping[str, Mapping],
    groups: Iterable[Mapping[str, object]],
) -> dict[str, object]:
    """Return {"epoch", "step", "moments", "scaler", "groups", "steps"} of a file.

    states: of the optimizer, by our names. groups: the settings of the published groups, without
    parameters; steps: the count of each parameter as the file has it, for `export_training`.
    """
    steps = {}
    moments = {}
    for name, state in states.items():
        named = {_MOMENTS.get(key, key): value for key, value in state.items()}
        steps[name] = named.pop("step")
        if "m" not in named:  # Adam corrects its moments by the count; our BertAdam needs none
            named["step"] = torch.tensor(float(steps[name]))
        moments[name] = named
    return {
        "epoch": epoch,
        "step": int(published.get("global_step") or max(map(float, steps.values()))),
        "moments": moments,
        "scaler": dict(published.get("scaler") or {}),
        "groups": [_settings(group) for group in groups],
        "steps": steps,
    }


def _settings(group: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in group.items() if key != "params"}


def export_training(
    value: Content, options: Options, weights: Weights, stopped: Stopped
) -> tuple[Content, dict[str, object]]:
    """Return the file's content with the optimizer's state, and what goes into the file beside it.

    value: as `export_file` gives it; stopped: as `import_training` gave it. CenterCLIP's state goes
    into the file itself, CLIP4Clip's into the one beside it.
    """
    states = {
        name: {"step": stopped["steps"][name]}
        | {key: moment for key, moment in moments.items() if key != "step"}
        for name, moments in stopped["moments"].items()
    }
    is_clip4clip = "state_dict" not in value
    optimizer = export_optimizer(options, weights, states, stopped["groups"], is_clip4clip)
    if not is_clip4clip:
        return with_optimizer(value, stopped, optimizer), {}
    side = {"epoch": stopped["epoch"] - 1, "optimizer_state_dict": optimizer}
    return value, side | {"loss": 0.0} | (stopped.get("beside") or {})


def with_optimizer(
    value: Mapping[str, object], stopped: Mapping[str, object], optimizer: Mapping[str, object]
) -> dict[str, object]:
    """Return a file's content with counters, optimizer state and, if there was one, loss scaler."""
    counted = {"epoch": stopped["epoch"], "global_step": stopped["step"], "optimizer": optimizer}
    return {**value, **counted} | ({"scaler": stopped["scaler"]} if stopped["scaler"] else {})


def import_optimizer(
    options: Options, weights: Mapping[str, Tensor], optimizer: Mapping[str, object]
) -> State:
    """Return the moments of a published optimizer by our parameter names, in their shapes.

    Frozen parameters have none. weights: ours, as `import_checkpoint` gives them; optimizer: as in
    the file, CLIP4Clip's `optimizer_state_dict` too. Raises Mismatch if it belongs to another
    model.
    """
    named = centerclip.published_names(options, weights)
    order = _order(named, optimizer)
    ours = our_names(options, weights)
    found = {}
    faults = []
    for number, state in optimizer["state"].items():
        name = order[number] if number < len(order) else None
        moments = {_MOMENTS.get(key, key): value for key, value in state.items()}
        if name is None or not _have_shape(moments, named[name].shape):
            faults.append(f"{number} ({name})")
            continue
        found[ours[name]] = moments
    if faults:
        raise Mismatch(
            f"moments of another model: {', '.join(faults[:6])}",
            "Give the optimizer state that was saved with these weights.",
        )
    return found


def export_optimizer(
    options: Options,
    weights: Mapping[str, Tensor],
    state: State,
    groups: Iterable[Mapping[str, object]],
    clip4clip: bool = False,
) -> dict[str, object]:
    """Return {"state", "param_groups"} as CenterCLIP saves them, or CLIP4Clip.

    Moments have their shapes. groups: the settings of the four groups, in its order.
    """
    ours = our_names(options, weights)
    theirs = {own: moment for moment, own in _MOMENTS.items()}
    order = parameter_order(centerclip.published_names(options, weights), clip4clip)
    numbered = [name for group in order for name in group]
    numbers = {name: number for number, name in enumerate(numbered)}
    states = {}
    for name, number in numbers.items():
        own = state.get(ours[name])
        if own is not None:
            states[number] = {theirs.get(key, key): value for key, value in own.items()}
    param_groups = [
        {**_settings(settings), "params": [numbers[name] for name in names]}
        for settings, names in zip(groups, order, strict=True)
    ]
    return {"state": states, "param_groups": param_groups}


def as_state_dict(state: State, groups: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return what `load_state_dict` of an optimizer over `groups` takes.

    groups: each {"names", "params", settings ...}. Moments have the shapes of their parameters.
    """
    param_groups = []
    states = {}
    count = 0
    for group in groups:
        names = group["names"]
        settings = {key: value for key, value in group.items() if key not in ("names", "params")}
        param_groups.append(settings | {"params": list(range(count, count + len(names)))})
        for number, name in enumerate(names, count):
            if name in state:
                states[number] = state[name]
        count += len(names)
    return {"state": states, "param_groups": param_groups}


def _order(names: Iterable[str], optimizer: Mapping[str, object]) -> list[str]:
    """Return the parameters as an optimizer numbers them. Raises Mismatch if its groups do not fit.

    CLIP4Clip's groups are told from CenterCLIP's by their sizes.
    """
    sizes = [len(group["params"]) for group in optimizer["param_groups"]]
    for clip4clip in (False, True):
        groups = parameter_order(names, clip4clip)
        if [len(group) for group in groups] == sizes:
            return [name for group in groups for name in group]
    expected = [len(group) for group in parameter_order(names)]
    raise Mismatch(
        f"an optimizer of {sizes} parameters for a model of {expected}",
        "Give the optimizer state that was saved with these weights.",
    )


def our_names(options: Options, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name of every entry by its published one; weights may have any shape."""
    return dict(zip(centerclip.rename(options, weights), weights, strict=True))


def _have_shape(moments: Mapping[str, object], shape: torch.Size) -> bool:
    tensors = [value for value in moments.values() if isinstance(value, Tensor)]
    return all(value.shape == shape for value in tensors if value.ndim)
