"""Optimizer states of CenterCLIP and CLIP4Clip checkpoints by the names of our parameters, and
back.

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

State = dict[str, dict[str, Tensor]]  # parameter -> {"exp_avg", ...}

_MOMENTS = {"next_m": "m", "next_v": "v"}
_CLIP4CLIP_MODEL, _CLIP4CLIP_OPTIMIZER = "pytorch_model.bin.", "pytorch_opt.bin."
_NOT_CLIP = ("time_embedding", "frame_embedding", "deepcluster")


def parameter_order(names: Iterable[str], clip4clip: bool = False) -> list[list[str]]:
    """Published names of all parameters in the four groups, in the order in which an optimizer
    numbers them.

    names: of the state dict, in its order, without `module.`. CLIP4Clip has the decayed groups
    first.
    """
    groups: dict[tuple[bool, bool], list[str]] = {
        (is_clip, decays): [] for is_clip in (True, False) for decays in (True, False)
    }
    if clip4clip:
        groups = dict(sorted(groups.items(), key=lambda item: not item[0][1]))
    for name in names:
        if name == "clip.visual.position_ids" or name.endswith(".spg"):
            continue
        is_clip = "clip." in name and not any(part in name for part in _NOT_CLIP)
        groups[is_clip, "bias" not in name].append(name)
    return list(groups.values())


def companion(name: str) -> str:
    """The file beside a checkpoint that has its optimizer state; empty where the checkpoint has it
    itself.
    """
    return (
        name.replace(_CLIP4CLIP_MODEL, _CLIP4CLIP_OPTIMIZER)
        if name.startswith(_CLIP4CLIP_MODEL)
        else ""
    )


def import_training(
    published: Mapping[str, object],
    side: Mapping[str, object],
    options: Options,
    weights: Mapping[str, Tensor],
) -> dict[str, object] | None:
    """{"epoch" and "step" that were done, "moments", "scaler"}; None if there is no optimizer
    state.

    published: CenterCLIP's file; side: CLIP4Clip's, {epoch from 0, optimizer_state_dict, loss}.
    Raises Mismatch if they are of another model.
    """
    optimizer = side.get("optimizer_state_dict") or published.get("optimizer")
    if not optimizer or not optimizer["state"]:
        return None
    epoch = int(side["epoch"]) + 1 if side else int(published["epoch"])
    return stopped_at(epoch, published, import_optimizer(options, weights, optimizer))


def stopped_at(
    epoch: int, published: Mapping[str, object], states: Mapping[str, Mapping]
) -> dict[str, object]:
    """{"epoch", "step", "moments", "scaler"} from a file's content and its optimizer's states by
    our names.
    """
    steps, moments = [], {}
    for name, state in states.items():
        named = {_MOMENTS.get(key, key): value for key, value in state.items()}
        steps.append(float(named.pop("step")))
        # Adam corrects its moments by the count; our BertAdam needs none
        moments[name] = named if "m" in named else named | {"step": torch.tensor(steps[-1])}
    return {
        "epoch": epoch,
        "step": int(published.get("global_step") or max(steps)),
        "moments": moments,
        "scaler": dict(published.get("scaler") or {}),
    }


def import_optimizer(
    options: Options, weights: Mapping[str, Tensor], optimizer: Mapping[str, object]
) -> State:
    """The moments of a published optimizer by our parameter names; frozen parameters have none.

    weights: ours, as `import_checkpoint` gives them; optimizer: as in the file, CLIP4Clip's
    `optimizer_state_dict` too. Raises Mismatch if it is of another model.
    """
    names = centerclip.published_names(options, weights)
    found, faults = {}, []
    order = _order(names, optimizer)
    ours = our_names(options, weights)
    for number, state in optimizer["state"].items():
        name = order[number] if number < len(order) else None
        moments = {_MOMENTS.get(key, key): value for key, value in state.items()}
        if name is None or any(v.ndim and v.shape != names[name].shape for v in _tensors(moments)):
            faults.append(f"{number} ({name})")
            continue
        found[ours[name]] = moments
    if faults:
        raise Mismatch(
            f"moments of another model: {', '.join(faults[:6])}",
            "Give the optimizer of these weights.",
        )
    return found


def export_optimizer(
    options: Options,
    weights: Mapping[str, Tensor],
    state: State,
    groups: Iterable[Mapping[str, object]],
) -> dict[str, object]:
    """{"state", "param_groups"} as CenterCLIP saves them. groups: the settings of the four groups,
    in its order.
    """
    ours = our_names(options, weights)
    theirs = {own: moment for moment, own in _MOMENTS.items()}
    order = parameter_order(centerclip.published_names(options, weights))
    numbers = {name: n for n, name in enumerate(name for group in order for name in group)}
    return {
        "state": {
            numbers[name]: {theirs.get(key, key): value for key, value in state[ours[name]].items()}
            for name in numbers
            if ours[name] in state
        },
        "param_groups": [
            {**settings, "params": [numbers[name] for name in names]}
            for settings, names in zip(groups, order, strict=True)
        ],
    }


def as_state_dict(state: State, groups: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """What `load_state_dict` of an optimizer over `groups` takes: each {"names", "params", settings
    ...}.
    """
    numbered, kept, count = [], {}, 0
    for group in groups:
        names = group["names"]
        settings = {key: value for key, value in group.items() if key not in ("names", "params")}
        numbered.append(settings | {"params": list(range(count, count + len(names)))})
        kept |= {count + n: state[name] for n, name in enumerate(names) if name in state}
        count += len(names)
    return {"state": kept, "param_groups": numbered}


def _order(names: Iterable[str], optimizer: Mapping[str, object]) -> list[str]:
    """CLIP4Clip's groups are told from CenterCLIP's by their sizes."""
    sizes = [len(group["params"]) for group in optimizer["param_groups"]]
    for clip4clip in (False, True):
        groups = parameter_order(names, clip4clip)
        if [len(group) for group in groups] == sizes:
            return [name for group in groups for name in group]
    raise Mismatch(
        f"an optimizer of {sizes} parameters for a model of"
        f" {[len(g) for g in parameter_order(names)]}",
        "Give the optimizer of these weights.",
    )


def our_names(options: Options, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Our name of every entry by its published one."""
    return dict(zip(centerclip.renamed(options, weights), weights, strict=True))


def _tensors(moments: Mapping[str, object]) -> list[Tensor]:
    return [value for value in moments.values() if isinstance(value, Tensor)]
