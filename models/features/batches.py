"""Run a frame network over images that arrive one by one: precision, memory format, batches of a
fixed size.

On a CPU one thread per process and batches of 8 within one video are fastest; on a GPU the batches
mix videos and are always full (padded at the end), so that a row does not depend on which others it
met.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.features import resnet
from models.features.tiny_random import TinyRandom

Precision = Literal["float32", "bfloat16"]
TINY = "tiny-random"


def load(
    name: str, state: Mapping[str, Tensor] | None, precision: Precision, device: str
) -> nn.Module:
    """A network by name on its device; `state`: its weights (None for tiny-random, which is always
    float32).

    Raises ValueError if they are not the weights of this network.
    """
    if name == TINY:
        return TinyRandom().eval().to(device)
    network = resnet.load(name, state).to(device)
    return network.to(memory_format=torch.channels_last, dtype=getattr(torch, precision))


class Batches:
    """Images in, features out. `add` one image at a time; `drain` gives the features of all since
    the last drain.

    side: of the images. full: pad the last batch to the full size, so that every pass has the same
    shape.
    """

    def __init__(self, network: nn.Module, side: int, batch: int, device: str, full: bool):
        self._network, self._device, self._full = network, device, full
        self._images = torch.zeros(
            batch, side, side, 3, dtype=torch.uint8, pin_memory=device != "cpu"
        )
        self._buffer = self._images.numpy()
        self._waiting = 0
        self._done: list[Tensor] = []

    def add(self, image: np.ndarray) -> None:
        """uint8 RGB (side, side, 3); copied."""
        self._buffer[self._waiting] = image
        self._waiting += 1
        if self._waiting == len(self._images):
            self._run()

    def drain(self) -> np.ndarray:
        """float32 (n, dim) in the order of `add`; at least one image must have been added."""
        if self._waiting:
            self._run()
        features = torch.cat(self._done).cpu().numpy()
        self._done = []
        return features

    def clear(self) -> None:
        """Forget everything added since the last drain."""
        self._waiting, self._done = 0, []

    def _run(self) -> None:
        used = slice(None) if self._full else slice(self._waiting)
        with torch.inference_mode(), _repeatable():
            features = self._network(self._images[used].to(self._device, copy=True))[
                : self._waiting
            ]
        self._done.append(features)
        self._waiting = 0


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """One CPU thread, and GPU kernels chosen by shape alone, in full float32 where float32 is asked
    for.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_num_threads(threads)
