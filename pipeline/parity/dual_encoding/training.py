"""Handler of system "dual-encoding", kind "train-steps".

Batch norm takes away what a bias before it adds, so the true gradient of such a bias is zero and
the computed one is rounding noise. Adam divides by the size of the gradient and makes steps of the
learning rate out of that noise, so no two programs agree on these entries (measured: a plain
transcription of the published model differs as much as ours). They are recognised by gradients
below 1e-6 of the total norm; such an entry may be off by two learning rates per step, and so may
what depends on it. Everything else is held to the tolerance of the case.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.dual_encoding.model import DualEncoding, build
from models.dual_encoding.published import published_names
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close
from pipeline.parity.dual_encoding.model import batch_of, forward, opened

_LOSSES = {
    "loss_lat_v2t": "latent_v2t",
    "loss_lat_t2v": "latent_t2v",
    "loss_bce_video": "tags_video",
    "loss_bce_text": "tags_text",
    "loss_con_v2t": "concept_v2t",
    "loss_con_t2v": "concept_t2v",
    "loss_total": "loss",
}
_OPTIMIZERS = {"Adam": torch.optim.Adam}
_NOISE = 1e-6  # of the total gradient norm


@dataclass
class Noise:
    """Which entries of which parameters have had a gradient of rounding noise, and how far each may
    have drifted.
    """

    entries: dict[str, Tensor] = field(default_factory=dict)
    drift: float = 0.0

    def add(self, grads: Mapping[str, Tensor], total: float, lr: float) -> None:
        for name, grad in grads.items():
            noisy = (grad != 0) & (grad.abs() < _NOISE * total)  # an exact zero moves nothing
            self.entries[name] = noisy | self.entries.get(name, False)
        self.drift += 2 * lr

    def of_norm(self, name: str) -> float:
        return self.drift * float(self.entries[name].sum()) ** 0.5

    def of_values(self, name: str) -> float:
        return self.drift * bool(self.entries[name].any())


def train_steps(case: Case) -> Iterator[Comparison]:
    """Loss terms, gradients, norms and batch-norm statistics of successive steps, with the concept
    heads run twice.
    """
    options, assets = yield from opened(case, case.info["checkpoint"].partition(" ")[0])
    model = build(options.model_copy(update={"concept_double_pass": True}), assets).train()
    settings = dict(case.info["optimizer"])
    optimizer = _OPTIMIZERS[settings.pop("name")](model.parameters(), **settings)
    stated, noise = Tolerance.parse(case.info["tolerance"]), Noise()
    for step in range(case.info["steps"]):
        batch = batch_of(case.inputs, f"step{step}/")
        values = _before(model, batch, optimizer, case.info["grad_clip"], noise)
        values |= _after(model)
        for name, value in values.items():
            if (key := f"step{step}/{name}") in case.outputs:
                yield close(key, value, case.outputs[key], _allowed(name, stated, noise))
    anywhere = max(map(noise.of_values, noise.entries))
    for key in (key for key in case.outputs if key.startswith("final/sim_fused")):
        fused = forward(model.eval(), batch)["sim_fused_v2t"]
        yield close(key, fused, case.outputs[key], Tolerance(stated.absolute + anywhere))
    for name, value in published_names(options, dict(model.named_parameters())).items():
        if (key := f"final/param/{name}") in case.outputs:
            allowed = Tolerance(stated.absolute + noise.of_values(name))
            yield close(key, value.detach(), case.outputs[key], allowed)


def _before(
    model: DualEncoding,
    batch: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    clip: float,
    noise: Noise,
) -> dict[str, Tensor]:
    """Scores, losses and gradients, and the step itself."""
    optimizer.zero_grad()
    text, video = model.encode_text(batch), model.encode_video(batch)
    terms = model.loss(text, video, batch)
    terms["loss"].backward()
    with torch.no_grad():
        values = {f"sim_{space}_v2t": score.T for space, score in model.score(text, video).items()}
    values |= {name: terms[ours].detach() for name, ours in _LOSSES.items()}
    grads = published_names(
        model.options, {name: p.grad.clone() for name, p in model.named_parameters()}
    )
    values |= {f"grad/{name}": grad for name, grad in grads.items()}
    values |= {f"gradnorm/{name}": grad.norm() for name, grad in grads.items()}
    values["grad_total_norm_before_clip"] = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    noise.add(grads, float(values["grad_total_norm_before_clip"]), optimizer.param_groups[0]["lr"])
    optimizer.step()
    return values


def _after(model: DualEncoding) -> dict[str, Tensor]:
    parameters = published_names(model.options, dict(model.named_parameters()))
    buffers = published_names(model.options, dict(model.named_buffers()))
    norms = {f"paramnorm/{name}": value.detach().norm() for name, value in parameters.items()}
    return norms | {f"buffer/{name}": value for name, value in buffers.items()}


def _allowed(name: str, stated: Tolerance, noise: Noise) -> Tolerance:
    """As the case's tolerance_note says in words: norms of gradients relative, losses closer than
    the rest.
    """
    kind, _, parameter = name.partition("/")
    if kind == "paramnorm":
        return Tolerance(stated.absolute + noise.of_norm(parameter))
    if kind in ("gradnorm", "grad_total_norm_before_clip"):
        return Tolerance(_NOISE, stated.absolute)
    return Tolerance(min(1e-5, stated.absolute)) if kind.startswith("loss_") else stated


HANDLERS = {"train-steps": train_steps}
