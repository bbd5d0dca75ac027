"""Run a frame network over images that arrive one by one, in batches of a fixed size.

On a CPU one thread per process and batches of 8 within one video are fastest. On a GPU the batches
mix videos and are always full (padded at the end), so that a row does not depend on which others it
met.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.features.resnet import load_resnet
from models.features.tiny_random import TinyRandom

Precision = Literal["float32", "bfloat16"]
TINY = "tiny-random"


def load_network(
    name: str, state: Mapping[str, Tensor] | None, precision: Precision, device: str
) -> nn.Module:
    """Return a network by name on its device, ready for inference.

    It maps uint8 RGB images (N, side, side, 3) to features (N, dim). state: its weights, or None
    for tiny-random, which is always float32. Raises ValueError if they are not the weights of this
    network.
    """
    if name == TINY:
        return TinyRandom().eval().to(device)
    network = load_resnet(name, state).to(device)
    return network.to(memory_format=torch.channels_last, dtype=getattr(torch, precision))


class Batches:
    """Images in, features out: `add` one image at a time, `drain` the features since the last time.

    side: of the images. full: pad the last batch to the full size, so that every pass has the same
    shape.
    """

    def __init__(self, network: nn.Module, side: int, batch: int, device: str, full: bool):
        self._network = network
        self._device = device
        self._full = full
        self._images = torch.zeros(
            batch, side, side, 3, dtype=torch.uint8, pin_memory=device != "cpu"
        )
        self._buffer = self._images.numpy()
        self._waiting = 0
        self._done: list[Tensor] = []

    def add(self, image: np.ndarray) -> None:
        """Take an image, uint8 RGB (side, side, 3); it is copied."""
        self._buffer[self._waiting] = image
        self._waiting += 1
        if self._waiting == len(self._images):
            self._run()

    def drain(self) -> np.ndarray:
        """Return float32 (n, dim) in the order of `add`, which must have been called."""
        if self._waiting:
            self._run()
        features = torch.cat(self._done).cpu().numpy()
        self._done = []
        return features

    def clear(self) -> None:
        """Forget everything added since the last drain."""
        self._waiting = 0
        self._done = []

    def _run(self) -> None:
        images = self._images if self._full else self._images[: self._waiting]
        with torch.inference_mode(), _repeatable():
            features = self._network(images.to(self._device, copy=True))
        self._done.append(features[: self._waiting])
        self._waiting = 0


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Use one CPU thread, and GPU kernels that are chosen by shape alone and keep full float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_num_threads(threads)
