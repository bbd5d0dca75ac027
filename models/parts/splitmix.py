"""SplitMix64 (Steele et al. 2014): random numbers that are a function of a counter."""

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)  # from one state of the sequence to the next


def mix(state: np.ndarray) -> np.ndarray:
    """Return the number that belongs to each state, uint64 in the shape of `state` (uint64).

    Arithmetic is modulo 2 ** 64: with scalars, call it under `np.errstate(over="ignore")`.
    """
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
