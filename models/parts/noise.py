"""Where the normal numbers of a sampling evaluation come from: a function of seed, direction, query
and candidate.

Nothing is drawn in turn, so the same command gives the same ranks whatever the batches, blocks,
processes or the order of the candidates are. The published code draws from one global generator,
batch by batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Direction = Literal["t2v", "v2t"]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # of the SplitMix64 sequence (Steele et al. 2014)
_DIRECTIONS = {"t2v": 1, "v2t": 2}


class NoiseSource(Protocol):
    """Anything that has a number for each query and candidate."""

    def draw(self, direction: Direction, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Float32 (B, K) for queries int64 (B,) and candidates int64 (B, K): rows of the encodings,
        best first.
        """


@dataclass(frozen=True)
class Noise:
    """Standard normal numbers. text, video: uint64 keys of the rows of the encodings (`keys`)."""

    seed: int
    text: np.ndarray
    video: np.ndarray

    def draw(self, direction: Direction, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """As NoiseSource; a pair has its number whatever else is drawn."""
        asking, asked = (self.text, self.video) if direction == "t2v" else (self.video, self.text)
        with np.errstate(over="ignore"):  # arithmetic modulo 2 ** 64
            stream = _scrambled(
                _scrambled(np.uint64(self.seed)) + np.uint64(_DIRECTIONS[direction])
            )
            pairs = _scrambled(
                _scrambled(stream ^ asking[queries])[:, None] ^ _scrambled(asked[candidates])
            )
            angles = _unit(_scrambled(pairs))
        return (np.sqrt(-2 * np.log(_unit(pairs))) * np.cos(2 * np.pi * angles)).astype(
            np.float32
        )  # Box and Muller


def keys(names: Sequence[str | bytes]) -> np.ndarray:
    """A number for each name, uint64 (n,): the same in every run."""
    data = (name.encode() if isinstance(name, str) else name for name in names)
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in data)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _scrambled(x: np.ndarray) -> np.ndarray:
    """The next number of SplitMix64 from state x, uint64."""
    x = x + _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _unit(x: np.ndarray) -> np.ndarray:
    """The upper 53 bits as a float64 between 0 and 1, neither of which occurs."""
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
