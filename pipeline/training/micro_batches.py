"""The gradient of a whole batch with the memory of a few pairs: gradient caching.

A contrastive loss compares every text of a batch with every video, so its gradient is not a sum
over parts of the batch. But it needs only what the encoders return, which is small; what takes
memory is what the encoders keep for backward. By the chain rule the work can be cut there:

    1. read every part of the batch without a graph, and keep what was read
    2. the losses of all that was read; backward ends at it: one gradient for each row
    3. read every part again with a graph, and send its rows of that gradient back into the weights

A part draws in (3) the random numbers it drew in (1). What `prepare` returns is made once, for all
parts: its gradient is collected and sent back at the end. The price is one more forward pass.

Paper: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup
(RepL4NLP 2021), sections 3.2 and 3.3. Where we differ: texts and videos are parts of their own, so
that one of them is in memory at a time; the losses are any that `RetrievalModel.losses` returns.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from models.base import Batch, Encoding, RetrievalModel, Shared
from pipeline.errors import ConfigError

Precision = Callable[[], AbstractContextManager]  # the arithmetic of a forward pass
_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  (the one parent of all batch norms)
_SHOWN = 3


class InParts:
    """The losses of a batch of B pairs, `n_pairs` of which are encoded at once.

    losses: named terms () and "loss", as `RetrievalModel.forward` returns them. `backward` adds the
    gradient of the whole batch to the weights; then the object is used up.
    """

    def __init__(self, model: RetrievalModel, batch: Batch, n_pairs: int, precision: Precision):
        self._precision = precision
        with precision():
            self._prepared = model.prepare()
        self._shared = {
            name: value.detach().requires_grad_(value.requires_grad)
            for name, value in self._prepared.items()
        }
        texts = _Side(model.read_text, batch, n_pairs)
        videos = _Side(model.read_video, batch, n_pairs)
        self._sides = [texts, videos]
        text = texts.read(self._shared, precision)
        video = videos.read(self._shared, precision)
        with precision():
            self.losses = model.losses(text, video, batch)
        self._after = Draws(_device(batch))

    def backward(self, loss: Tensor) -> None:
        """Send the gradient of `loss` (), made of `losses`, back into every weight."""
        loss.backward()
        for side in self._sides:
            side.send_back(self._shared, self._precision)
        _send([(value, self._shared[name].grad) for name, value in self._prepared.items()])
        self._after.replay()  # what is drawn next must not repeat what the last part drew


class _Side:
    """The texts or the videos of a batch."""

    def __init__(
        self, encode: Callable[[Batch, Shared | None], Encoding], batch: Batch, n_pairs: int
    ):
        self._encode = encode
        self._batch = batch
        self._n_pairs = n_pairs
        self._draws: list[Draws] = []
        self._encoding: Encoding = {}

    def read(self, shared: Shared, precision: Precision) -> Encoding:
        """Return what is read of all rows, (B, ...), as leaves that collect gradients."""
        read = []
        for _, part in self._parts():
            self._draws.append(Draws(_device(part)))
            # a context for each part: autocast keeps casted weights, which have no graph here
            with torch.no_grad(), precision():
                read.append(self._encode(part, shared))
        whole = {name: torch.cat([one[name] for one in read]) for name in read[0]}
        self._encoding = {n: x.requires_grad_(x.is_floating_point()) for n, x in whole.items()}
        return self._encoding

    def send_back(self, shared: Shared, precision: Precision) -> None:
        """Read each part once more, and send its rows of the gradient back."""
        for (rows, part), draws in zip(self._parts(), self._draws, strict=True):
            draws.replay()
            with precision():
                read = self._encode(part, shared)
            grads = {name: value.grad for name, value in self._encoding.items()}
            sent = _send([(read[n], grad[rows]) for n, grad in grads.items() if grad is not None])
            if not sent:  # frozen: the same holds for every part
                return

    def _parts(self) -> Iterator[tuple[slice, Batch]]:
        n_rows = len(next(iter(self._batch.values())))
        for start in range(0, n_rows, self._n_pairs):
            rows = slice(start, start + self._n_pairs)
            yield rows, {name: value[rows] for name, value in self._batch.items()}


class Draws:
    """Where torch's random generators stood, on the CPU and on a device, when this was made.

    Models draw from them alone; `seed_step` sets them at every step.
    """

    def __init__(self, device: torch.device):
        self._state = torch.get_rng_state()
        self._of_device = None if device.type == "cpu" else torch.get_device_module(device)
        self._device_state = self._of_device.get_rng_state() if self._of_device else None

    def replay(self) -> None:
        """Let what is drawn from now on be what was drawn after this was made."""
        torch.set_rng_state(self._state)
        if self._of_device:
            self._of_device.set_rng_state(self._device_state)


def batch_norms(model: nn.Module, still: Collection[nn.Module]) -> list[str]:
    """Return names of the modules that normalise over the batch; not those of `still`, which keep
    their statistics.

    With one of them a model cannot be trained in parts: each part would be normalised by its own
    statistics, and the gradient would be that of another loss.
    """
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, _NORM) and not any(part is kept for kept in still)
    ]


def check(found: list[str]) -> None:
    """Raise ConfigError if `batch_norms` found some."""
    if not found:
        return
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    raise ConfigError(
        f"the model has batch norms, whose values depend on the whole batch:"
        f" {', '.join(found[:_SHOWN])}{more}",
        where="train.micro_batch",
        fix=(
            "Leave micro_batch out, or freeze them with their statistics (train.freeze:"
            " {match: ..., norms_in_eval_mode: true})."
        ),
    )


def _send(pairs: list[tuple[Tensor, Tensor | None]]) -> bool:
    """Send gradients back from what has a graph; returns whether anything had."""
    live = [(value, grad) for value, grad in pairs if grad is not None and value.requires_grad]
    if live:
        torch.autograd.backward([value for value, _ in live], [grad for _, grad in live])
    return bool(live)


def _device(batch: Batch) -> torch.device:
    return next(iter(batch.values())).device
