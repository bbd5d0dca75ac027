"""What the bytes of a file say about it without a demuxer: where it ought to end, and whether it
opens other files.

Demuxers read a file that was cut short to its last whole packet without a word; the sizes in its
structure tell.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path

_SCRIPTS = (
    b"ffconcat",
    b"#EXTM3U",
    b"[playlist]",
    b"<asx",
    b"<smil",
    b"RTSPtext",
    b"v=0\r\n",
    b"v=0\n",
)
_XML_SCRIPTS = (b"<MPD", b"<CompositionPlaylist", b"<SmoothStreamingMedia", b"<playlist")


def opens_other_files(head: bytes) -> bool:
    """Return whether the first bytes are those of a playlist, a manifest or a script."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_xml = text.startswith((b"<?xml", b"<"))
    return text.lower().startswith(tuple(s.lower() for s in _SCRIPTS)) or (
        is_xml and any(mark in head for mark in _XML_SCRIPTS)
    )


def declared_end(file: str | io.BytesIO, format_name: str, size: int) -> int | None:
    """Return the number of bytes the file should have at least by its own structure, or None where
    that cannot be known.

    file: `file:` URL or bytes in memory. A file is cut short when this is more than `size`.
    """
    for name, reader in _READERS.items():
        if name in format_name.split(","):
            if isinstance(file, io.BytesIO):
                return reader(io.BytesIO(file.getbuffer()), size)
            with Path(file.removeprefix("file:")).open("rb", buffering=0) as raw:
                return reader(raw, size)
    return None


def _boxes(file: io.RawIOBase, size: int) -> int | None:
    """ISO media: the end of the last known box."""
    position, end = 0, None
    while position + 8 <= size:
        header = _at(file, position, 16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        if kind not in _TOP_BOXES or length == 0 or length < 8:  # 0: up to the end of the file
            return end
        position = end = position + length
    return end


_TOP_BOXES = frozenset(
    b"ftyp styp moov moof mdat free skip wide uuid sidx mfra meta pdin pnot emsg prft udta".split()
)


def _segment(file: io.RawIOBase, size: int) -> int | None:
    """Matroska: the end of the segment, unless it was written live."""
    data = _at(file, 0, 4096)
    if data[:4] != b"\x1a\x45\xdf\xa3":
        return None
    length, used = _variable_integer(data, 4)
    if length is None:
        return None
    position = 4 + used + length
    while data[position : position + 1] == b"\xec":  # void
        length, used = _variable_integer(data, position + 1)
        if length is None:
            return None
        position += 1 + used + length
    if data[position : position + 4] != b"\x18\x53\x80\x67":
        return None
    length, used = _variable_integer(data, position + 4)
    return None if length is None else position + 4 + used + length


def _variable_integer(data: bytes, position: int) -> tuple[int | None, int]:
    """Return (value, bytes used) of an EBML size; value None: unknown."""
    if position >= len(data) or data[position] == 0:
        return None, 0
    used = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + used], "big") & ((1 << 7 * used) - 1)
    return (None if value == (1 << 7 * used) - 1 else value), used


def _riff(file: io.RawIOBase, size: int) -> int | None:
    """AVI: the end of the last RIFF chunk (large files have several)."""
    position, end = 0, None
    while position + 12 <= size:
        header = _at(file, position, 12)
        if header[:4] != b"RIFF" or header[8:] not in (b"AVI ", b"AVIX"):
            return end
        length = int.from_bytes(header[4:8], "little")
        if length < 4:  # never filled in: the recorder was stopped hard
            return end
        position = end = position + 8 + length
    return end


def _packs(file: io.RawIOBase, size: int) -> int | None:
    """MPEG program stream: the end of its last packet."""
    start = max(0, size - (1 << 18))
    tail = _at(file, start, 1 << 18)
    found = max(
        tail.rfind(b"\0\0\1" + bytes([stream])) for stream in (*range(0xE0, 0xF0), 0xC0, 0xBD, 0xBE)
    )
    if found < 0 or found + 6 > len(tail):
        return None
    length = int.from_bytes(tail[found + 4 : found + 6], "big")
    return start + found + 6 + length if length else None


def _transport(file: io.RawIOBase, size: int) -> int | None:
    """MPEG transport stream: a whole number of packets."""
    head = _at(file, 0, 188 * 3)
    if len(head) < 188 * 3 or {head[0], head[188], head[376]} != {0x47}:
        return None
    return -(-size // 188) * 188


def _trailer(file: io.RawIOBase, size: int) -> int | None:
    """GIF: it ends with a semicolon."""
    tail = _at(file, max(0, size - 64), 64).rstrip(b"\0\r\n")
    return size if tail.endswith(b";") else size + 1


def _at(file: io.RawIOBase, position: int, length: int) -> bytes:
    file.seek(position, os.SEEK_SET)
    return file.read(length) or b""


_READERS: dict[str, Callable[[io.RawIOBase, int], int | None]] = {
    "mov": _boxes,
    "matroska": _segment,
    "avi": _riff,
    "mpeg": _packs,
    "mpegts": _transport,
    "gif": _trailer,
}
