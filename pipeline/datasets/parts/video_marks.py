"""What a video looks like from outside: the suffixes of video files, and the first bytes of the
containers that people keep without a suffix.
"""

import re
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .3gp .3g2 .3gpp .3gp2 .avi .divx .mkv .mk3d .webm .flv .f4v .wmv .asf .mpg"
    " .mpeg .mpe .m1v .m2v .mpv .ts .m2t .m2ts .mts .vob .ogv .ogm .gif .nut .mxf .dv .rm .rmvb"
    " .h264 .264 .h265 .265 .hevc .y4m .ivf .wtv".split()
)
_SUFFIX = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,9}")  # ".886" of a time is none
_HEAD_BYTES = 400
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # MP4, MOV
_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"OggS",
    b"GIF87a",
    b"GIF89a",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b"nut/multimedia container\0",
    b".RMF",
    b"DKIF",
    b"YUV4MPEG2 ",
)


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case; "" where what follows the last dot is
    none.
    """
    suffix = Path(name).suffix
    return suffix.lower() if _SUFFIX.fullmatch(suffix) else ""


def is_video_name(name: str) -> bool:
    """Return whether a file is a video by its suffix."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def needs_a_look(name: str) -> bool:
    """Return whether a name says nothing about what the file is: it has no suffix."""
    return not suffix_of(name)


def starts_like_a_video(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a video container. False if
    unreadable.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    if head.startswith(_STARTS) or head[4:8] in _BOXES:
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    return _is_transport_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes, or of 192 with a time in front, each with its mark."""
    return any(
        len(head) > start + step and head[start] == 0x47 and head[start + step] == 0x47
        for start, step in ((0, 188), (4, 192))
    )
