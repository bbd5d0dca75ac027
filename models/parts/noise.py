"""Normal numbers for a sampling evaluation, as a function of seed, direction, query and candidate.

Nothing is drawn in turn, so the same command gives the same ranks whatever the batches, blocks,
processes or the order of the candidates are. The published code draws from one global generator,
batch by batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from models.parts.splitmix import STEP, mix

Direction = Literal["t2v", "v2t"]

_DIRECTIONS = {"t2v": 1, "v2t": 2}


class NoiseSource(Protocol):
    """Anything that has a number for each query and candidate."""

    def draw(self, direction: Direction, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return float32 (B, K) for queries int64 (B,) and candidates int64 (B, K), best first.

        Queries and candidates are rows of the encodings.
        """


@dataclass(frozen=True)
class KeyedNoise:
    """Standard normal numbers. text, video: uint64 keys of the rows of the encodings (`keys`)."""

    seed: int
    text: np.ndarray
    video: np.ndarray

    def draw(self, direction: Direction, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return float32 (B, K) for queries int64 (B,) and candidates int64 (B, K).

        A pair has its number whatever else is drawn.
        """
        asking = self.text if direction == "t2v" else self.video
        asked = self.video if direction == "t2v" else self.text
        with np.errstate(over="ignore"):  # arithmetic modulo 2 ** 64
            seed = _next(np.uint64(self.seed))
            stream = _next(seed + np.uint64(_DIRECTIONS[direction]))
            query = _next(stream ^ asking[queries])[:, None]  # (B, 1)
            candidate = _next(asked[candidates])  # (B, K)
            first = _next(query ^ candidate)  # (B, K)
            second = _next(first)
        # Box and Muller: two uniform numbers make a normal one
        radius = np.sqrt(-2 * np.log(_to_unit(first)))
        angle = 2 * np.pi * _to_unit(second)
        return (radius * np.cos(angle)).astype(np.float32)


def keys(names: Sequence[str | bytes]) -> np.ndarray:
    """Return a number for each name, uint64 (n,), the same in every run."""
    data = [name.encode() if isinstance(name, str) else name for name in names]
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in data)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _next(state: np.ndarray) -> np.ndarray:
    """Return the next number of SplitMix64 from `state`, uint64."""
    return mix(state + STEP)


def _to_unit(x: np.ndarray) -> np.ndarray:
    """Return the upper 53 bits as a float64 between 0 and 1, neither of which occurs."""
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
