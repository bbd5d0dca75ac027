"""Film in high dynamic range (PQ, HLG) as a picture for ordinary screens; so phones record today.

Light is decoded by its transfer function, brought from the wide primaries to those of BT.709, and
scaled so that the reference white of HDR, 203 cd/m2, becomes white; what is brighter is rolled off
smoothly and keeps its hue. Sources: ITU-R BT.2100 (PQ, HLG), BT.2408 (reference white), BT.2087
(primaries), BT.1886 (the exponent of screens). Where it differs from a full colour management: a
film's own mastering data are not read.
"""

from functools import cache

import numpy as np
from av.video.frame import VideoFrame

_PQ, _HLG = 16, 18  # transfer functions as FFmpeg numbers them
NAMES = {_PQ: "PQ", _HLG: "HLG"}
_WHITE = 203.0  # cd/m2
_PEAK = 1000.0  # cd/m2, of the screen that HLG is shown on
_KNEE = 0.8  # of white; below it light stays as it is
_TO_BT709 = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    np.float32,
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020 primaries
_BT709_PRIMARIES = 1


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether a frame holds PQ or HLG."""
    return int(frame.color_trc or 0) in NAMES


def to_sdr(rgb: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """uint16 (H, W, 3) R'G'B' of full range as uint8 (H, W, 3) for a BT.709 screen.

    transfer: 16 (PQ) or 18 (HLG). primaries: 1 if they are BT.709 already; any other value is
    taken as BT.2020, which both transfers come with.
    """
    light = _table(transfer)[rgb]  # (H, W, 3), 1 is white (PQ)
    if transfer == _HLG:
        scene = (light @ _LUMINANCE)[..., None]  # (H, W, 1)
        light = _PEAK / _WHITE * light * np.power(scene, 0.2)
    if primaries != _BT709_PRIMARIES:
        light = np.maximum(light @ _TO_BT709.T, 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= _rolled_off(brightest) / np.maximum(brightest, 1e-6)
    return np.rint(255 * np.power(light, 1 / 2.4)).astype(np.uint8)


def _rolled_off(light: np.ndarray) -> np.ndarray:
    """As it is up to the knee, then ever slower towards 1, without a corner."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * above / (1 + above))


@cache
def _table(transfer: int) -> np.ndarray:
    """Linear light of every 16-bit value, float32 (65536,): PQ as a share of white, HLG of the
    scene.
    """
    signal = np.arange(65_536, dtype=np.float64) / 65_535
    light = _of_pq(signal) / _WHITE if transfer == _PQ else _of_hlg(signal)
    return light.astype(np.float32)


def _of_pq(signal: np.ndarray) -> np.ndarray:
    """cd/m2 (BT.2100, table 4)."""
    m1, m2 = 2610 / 16_384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(signal, 1 / m2)
    return 10_000 * np.power(np.maximum(power - c1, 0) / (c2 - c3 * power), 1 / m1)


def _of_hlg(signal: np.ndarray) -> np.ndarray:
    """Scene light, 0 to 1 (BT.2100, table 5)."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
