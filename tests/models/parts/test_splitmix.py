"""SplitMix64 gives the numbers that its authors published."""

import numpy as np

from models.parts.splitmix import STEP, mix


def test_numbers_from_state_0_are_the_published_ones() -> None:
    states = np.arange(1, 4, dtype=np.uint64) * STEP

    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
