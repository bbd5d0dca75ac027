"""One video as one value of the frame store ("TVS1"): a header, times, offsets, then every frame on
its own.

Little endian: magic `TVS1`, codec u16, flags u16, frames u32, height u16, width u16, rate u32/u32,
CRC-32 u32 of everything after it; id (u16 length + UTF-8), times in ms u32[n], offsets u32[n+1]
(u64 with flag 1), payload. Any subset of the frames can be read without touching the others.
Source: docs/specs/preprocessing.md, section 5.2.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from pipeline.stores.frame_store import planes

Codec = Literal["jpeg", "raw", "yuv", "container"]
Buffer = bytes | memoryview
Fetch = Callable[
    [int, int], Buffer
]  # (start, length) of a value -> exactly these bytes; ValueError if they are not there

LARGEST_SIDE = 65_535
_MAGIC = b"TVS1"
_HEADER = struct.Struct("<4sHHIHHIII")
_ID_LENGTH = struct.Struct("<H")
_CODECS: dict[int, Codec] = {1: "jpeg", 2: "raw", 3: "yuv", 4: "container"}
_CODES = {name: code for code, name in _CODECS.items()}
_WIDE_OFFSETS = 1
_NARROW = 1 << 32  # a payload from this size on needs wide offsets


@dataclass(frozen=True)
class ValueHead:
    """What a value says about its video. times_ms: uint32 (n,). offsets: int64 (n+1,) within the
    payload at `start`.
    """

    video_id: str
    codec: Codec
    n_frames: int
    height: int
    width: int
    fps: Fraction
    times_ms: np.ndarray
    offsets: np.ndarray
    start: int

    def span(self, index: int) -> tuple[int, int]:
        """Start and length of a frame within the value."""
        begin, end = self.offsets[index : index + 2].tolist()
        return self.start + begin, end - begin


def encode_value(
    video_id: str,
    frames: Sequence[bytes],
    times_ms: Sequence[int],
    *,
    codec: Codec,
    height: int,
    width: int,
    fps: Fraction,
) -> bytes:
    """Return the value of a video. `frames`: one encoded frame each (`encode_frame`).

    codec "container": frames[0] is the whole video file and the other n-1 are empty. Equal input
    gives equal bytes.
    """
    offsets = np.zeros(len(frames) + 1, dtype=np.int64)
    np.cumsum([len(f) for f in frames], out=offsets[1:])
    wide = int(offsets[-1]) >= _NARROW
    name = video_id.encode("utf-8", "surrogateescape")
    body = b"".join(
        [
            _ID_LENGTH.pack(len(name)),
            name,
            np.asarray(times_ms, dtype="<u4").tobytes(),
            offsets.astype("<u8" if wide else "<u4").tobytes(),
            *frames,
        ]
    )
    rate = Fraction(fps).limit_denominator(1_000_000)
    flags = _WIDE_OFFSETS if wide else 0
    fields = (
        _CODES[codec],
        flags,
        len(frames),
        height,
        width,
        rate.numerator,
        rate.denominator,
        zlib.crc32(body),
    )
    return _HEADER.pack(_MAGIC, *fields) + body


def encode_frame(image: np.ndarray, codec: Codec, quality: int = 90) -> bytes:
    """Return one uint8 (H, W, 3) RGB frame. jpeg: 4:2:0, exact ("islow") DCT; raw: as it is; yuv:
    see `planes`.
    """
    image = np.ascontiguousarray(image)
    if codec == "raw":
        return image.tobytes()
    if codec == "yuv":
        return planes.from_rgb(image)
    import simplejpeg

    return simplejpeg.encode_jpeg(
        image, quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )


def read_head(fetch: Fetch, length: int) -> ValueHead:
    """Return the head of a value of `length` bytes. ValueError (a phrase) if it is not a whole,
    consistent TVS1 value.
    """
    fixed = _HEADER.size + _ID_LENGTH.size
    if length < fixed:
        raise ValueError(f"the value has only {length} bytes")
    first = fetch(0, fixed)
    magic, code, flags, count, height, width, num, den, _ = _HEADER.unpack_from(first)
    if magic != _MAGIC or code not in _CODECS or not (den and height and width and count):
        raise ValueError("the value does not begin with a TVS1 header")
    (id_bytes,) = _ID_LENGTH.unpack_from(first, _HEADER.size)
    wide = 8 if flags & _WIDE_OFFSETS else 4
    start = fixed + id_bytes + 4 * count + wide * (count + 1)
    if start > length:
        raise ValueError("the value is cut off inside its header")
    rest = fetch(fixed, start - fixed)
    times = np.frombuffer(
        rest, "<u4", count, id_bytes
    ).copy()  # copies: the buffer may belong to a transaction
    offsets = np.frombuffer(rest, f"<u{wide}", count + 1, id_bytes + 4 * count).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != length - start or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of its frames do not fit its length")
    name = bytes(rest[:id_bytes]).decode("utf-8", "surrogateescape")
    return ValueHead(
        video_id=name,
        codec=_CODECS[code],
        n_frames=count,
        height=height,
        width=width,
        fps=Fraction(num, den),
        times_ms=times,
        offsets=offsets,
        start=start,
    )


def checksum_holds(value: Buffer) -> bool:
    """True if a whole value still has the CRC-32 it was written with."""
    if len(value) < _HEADER.size:
        return False
    return zlib.crc32(memoryview(value)[_HEADER.size :]) == _HEADER.unpack_from(value)[-1]


def read_frames(head: ValueHead, fetch: Fetch, indices: Sequence[int], out: np.ndarray) -> None:
    """Decode the frames at `indices` (any order, repeats allowed) straight into `out`, uint8 (T, H,
    W, 3).

    Raises ValueError if a frame does not decode, ItemError for codec "container".
    """
    if head.codec == "container":
        from pipeline.video import reader as video

        out[...] = video.read_frames(bytes(fetch(*head.span(0))), indices)
        return
    decode = _DECODERS[head.codec]
    first_slot: dict[int, int] = {}
    for slot, index in enumerate(indices):
        if index in first_slot:  # short videos repeat their last frame: decoded once
            out[slot] = out[first_slot[index]]
            continue
        decode(fetch(*head.span(index)), out[slot])
        first_slot[index] = slot


def _decode_jpeg(data: Buffer, out: np.ndarray) -> None:
    import simplejpeg

    if simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape != out.shape:
        raise ValueError("a frame has another size than the header says")


def _decode_raw(data: Buffer, out: np.ndarray) -> None:
    out[...] = np.frombuffer(data, np.uint8).reshape(out.shape)


_DECODERS: dict[Codec, Callable[[Buffer, np.ndarray], None]] = {
    "jpeg": _decode_jpeg,
    "raw": _decode_raw,
    "yuv": planes.to_rgb,
}
