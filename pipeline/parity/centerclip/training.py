"""Handlers of system "centerclip": kinds "train-steps" and "checkpoint" (a file with optimizer and
loss scaler).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.centerclip.model import CenterCLIP, build
from models.centerclip.published import (
    export_file,
    import_checkpoint,
    published_names,
    rename,
    training_facts,
)
from models.centerclip.published_settings import recipe
from models.centerclip.published_training import (
    as_state_dict,
    export_optimizer,
    export_training,
    import_optimizer,
    import_training,
    our_names,
    parameter_order,
)
from pipeline.feeding.loader import Batch
from pipeline.parity.case import Case
from pipeline.parity.centerclip.model import (
    Watch,
    batch_of,
    freeze_as_published,
    intermediates,
    on_cpu,
    opened,
)
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.processes import World
from pipeline.recipes.recipe import Recipe, parse
from pipeline.training import optimizer
from pipeline.training.schedule import Schedule
from pipeline.training.step import Stepper

_OPTIMIZERS = {"bertadam": "BertAdam", "adamw": "AdamW"}


def train_steps(case: Case) -> Iterator[Comparison]:
    """Steps of both optimizers from the same weights: losses, rates, gradients, parameters,
    medoids.
    """
    published = yield from opened(case)
    tolerance = Tolerance(case.info["tolerance"]["default_max_abs_diff"])
    yield equal("param_order", "param_names" in case.info["param_order"], True)
    for prefix, name in _OPTIMIZERS.items():
        settings = on_cpu(case.info["options"]) | {"optim": name}
        training = parse({"name": prefix, **recipe(settings)})
        options, assets = import_checkpoint(published[1], settings)
        model = build(options, assets)
        freeze_as_published(model, case)
        ours = _run(model, training, case, prefix)
        for key, values in ours.items():
            expected = case.outputs[f"{prefix}__{key}"]
            if key == "lr_per_step_and_group":
                expected = expected[:, : values.shape[1]]  # the other groups are empty
            exact = np.issubdtype(expected.dtype, np.integer)
            yield close(f"{prefix}__{key}", values, expected, EXACT if exact else tolerance)
        yield from _group_rows(prefix, model, training, case)
        steps = {entry["step"] for entry in case.info[f"{prefix}__tensorboard_scalars_last_step"]}
        yield equal(
            f"{prefix}__tensorboard_scalars_last_step[step]", steps, {len(ours["loss_per_step"])}
        )


def _run(model: CenterCLIP, training: Recipe, case: Case, prefix: str) -> dict[str, np.ndarray]:
    """Return the recorded values of all steps, each stacked."""
    names, count = case.info["param_names"], len(case.inputs["input_ids"])
    stepper = Stepper(model.train(), model, training.train, torch.device("cpu"), World())
    horizon = case.info["total_optimization_steps"]
    schedule = Schedule(
        training.train.schedule, lr=training.train.optimizer.lr, horizon_steps=horizon
    )
    rows: dict[str, list] = {}
    grads: dict[str, Tensor] = {}

    def keep_gradients(*_: object) -> None:
        grads.update({n: p.grad.norm() for n, p in model.named_parameters() if p.grad is not None})

    hook = stepper.optimizer.register_step_pre_hook(keep_gradients)
    for step in range(count):
        batch = batch_of(case.inputs, index=step)
        with Watch(model, len(batch["text"])) as watch:
            result = stepper(iter([Batch(batch, [])]), 1, schedule.lr(step))
        values = rename(
            model.options, {n: p.detach().double() for n, p in model.named_parameters()}
        )
        norms = rename(model.options, grads)
        found = {
            "loss_per_step": result.terms["loss"],
            "lr_per_step_and_group": [group["lr"] for group in stepper.optimizer.param_groups],
            "grad_l2_after_global_clip": [float(norms[name]) for name in names],
            "param_l2_after_step": [float(values[name].norm()) for name in names],
            "param_sum_after_step": [float(values[name].sum()) for name in names],
            "logit_scale_after_step": float(model.clip.logit_scale.detach()),
            "medoids_per_step": (
                next(v for k, v in watch.values.items() if k.endswith("_medoids")).numpy()
            ),
        }
        for key, value in found.items():
            rows.setdefault(key, []).append(value)
    hook.remove()
    return {key: np.stack(values) for key, values in rows.items()}


def _group_rows(
    prefix: str, model: CenterCLIP, training: Recipe, case: Case
) -> Iterator[Comparison]:
    """Yield which parameters share which settings; frozen ones, which the published groups hold as
    well, are left out.
    """
    recorded = case.info[f"{prefix}__param_groups"]
    rates = case.outputs[f"{prefix}__lr_per_step_and_group"][-1]
    named = ((n, p) for n, p in model.named_parameters())
    groups = optimizer.parameter_groups(
        named, training.train.params, training.train.optimizer.weight_decay
    )
    trained = set(
        rename(model.options, {n: p for n, p in model.named_parameters() if p.requires_grad})
    )
    wanted = [[name for name in group["params"] if name in trained] for group in recorded]
    wanted = [names for names in wanted if names]
    ours = [
        list(rename(model.options, dict.fromkeys(group["names"], torch.empty(()))))
        for group in groups
    ]
    yield equal(f"{prefix}__param_groups[trained names]", ours, wanted)
    order = parameter_order(published_names(model.options, model.state_dict()))
    yield equal(f"{prefix}__param_groups[order]", order, [group["params"] for group in recorded])
    decays = [group["weight_decay_at_end"] for group in recorded[: len(groups)]]
    yield equal(
        f"{prefix}__param_groups[weight decay]", [group["weight_decay"] for group in groups], decays
    )
    base = rates[-1]  # the rate of what is not CLIP
    scales = [rate / base for rate in rates[: len(groups)]] if base else []
    own = [group["lr_scale"] for group in groups] if base else []
    yield close(f"{prefix}__param_groups[rate factors]", own, scales, Tolerance(1e-9))


def checkpoint_file(case: Case) -> Iterator[Comparison]:
    """Yield a whole file: weights, optimizer, loss scaler and counters read, used, and written back
    with equal values.
    """
    model, published = yield from opened(case)
    options, assets = import_checkpoint(published, on_cpu(case.info["options"]))
    yield equal(
        "checkpoint_top_level_keys", sorted(published), case.info["checkpoint_top_level_keys"]
    )
    facts = training_facts(published, {})
    for ours, theirs in (("epoch", "epoch"), ("step", "global_step"), ("best_acc1", "best_acc1")):
        yield equal(theirs, facts[ours], case.info[theirs])
    tolerance = Tolerance(case.info["tolerance"]["default_max_abs_diff"])
    batch = batch_of(case.inputs)
    ours = intermediates(model.eval(), batch)
    for name, expected in case.outputs.items():
        if name in ours:
            exact = np.issubdtype(expected.dtype, np.integer)
            yield close(name, ours[name], expected, EXACT if exact else tolerance)
    yield from _optimizer_rows(model, published, case, tolerance)
    again = export_file(options, assets.init, facts)
    stopped = import_training(published, {}, options, assets.init)
    if stopped is not None:
        again, _ = export_training(again, options, assets.init, stopped)
    yield equal("checkpoint_top_level_keys[written back]", sorted(again), sorted(published))
    kept = [key for key in published if key not in ("optimizer", "state_dict")]
    yield equal(
        "checkpoint_top_level_keys[values written back]",
        [again.get(k) for k in kept],
        [published[k] for k in kept],
    )
    for key in ("state", "param_groups"):
        yield equal(
            f"optimizer.{key}[through import and export]",
            _values(again.get("optimizer", {}).get(key)),
            _values(published["optimizer"][key]),
        )


def _optimizer_rows(
    model: CenterCLIP, published: Mapping, case: Case, tolerance: Tolerance
) -> Iterator[Comparison]:
    """Moments by the number of the parameter, and the same out of an optimizer of ours that went on
    from them.
    """
    weights, recorded = model.state_dict(), published["optimizer"]
    state = import_optimizer(model.options, weights, recorded)
    order = [n for group in parameter_order(published_names(model.options, weights)) for n in group]
    yield equal("optimizer_param_order", order, case.info["optimizer_param_order"])
    theirs = {"m": "next_m", "v": "next_v"}  # BertAdam's names
    keys = sorted({theirs.get(key, key) for moments in state.values() for key in moments})
    yield equal("optimizer_state_keys", keys, case.info["optimizer_state_keys"])
    yield equal("opt_m_l2 / opt_v_l2", "-1 = no state" in case.info["opt_m_l2 / opt_v_l2"], True)
    freeze_as_published(model, case)
    training = parse({"name": case.name, **recipe(case.info["options"])}).train
    groups = optimizer.parameter_groups(
        model.named_parameters(), training.params, training.optimizer.weight_decay
    )
    ours = optimizer.build(groups, training.optimizer)
    settings = [{k: v for k, v in g.items() if k != "params"} for g in ours.param_groups]
    named = [own | {"names": group["names"]} for own, group in zip(settings, groups, strict=True)]
    is_bert = training.optimizer.name == "bertadam"
    ours.load_state_dict(as_state_dict(_without_steps(state) if is_bert else state, named))
    parameters, own = dict(model.named_parameters()), our_names(model.options, weights)
    held = {
        theirs: ours.state[p] for theirs, n in own.items() if (p := parameters.get(n)) in ours.state
    }
    first, second = ("m", "v") if is_bert else ("exp_avg", "exp_avg_sq")
    for name, key in (("opt_m_l2", first), ("opt_v_l2", second)):
        norms = [float(held[n][key].double().norm()) if n in held else -1.0 for n in order]
        yield close(name, norms, case.outputs[name], tolerance)
    four = [{k: v for k, v in g.items() if k != "params"} for g in recorded["param_groups"]]
    again = export_optimizer(model.options, weights, state, four)
    yield equal("optimizer[written back]", _values(again), _values(recorded))
    if "scaler" in published:
        scaler = torch.amp.GradScaler("cpu", enabled=True)
        scaler.load_state_dict(published["scaler"])
        yield equal("scaler[loaded and saved]", scaler.state_dict(), published["scaler"])


def _without_steps(state: Mapping[str, Mapping]) -> dict[str, dict]:
    """Our BertAdam counts no steps: its schedule is the trainer's."""
    return {
        name: {key: value for key, value in moments.items() if key != "step"}
        for name, moments in state.items()
    }


def _values(value: object) -> object:
    """Tensors as lists, so that whole states can be compared."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: _values(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    return [_values(v) for v in value] if isinstance(value, (list, tuple)) else value


HANDLERS = {"train-steps": train_steps, "checkpoint": checkpoint_file}
