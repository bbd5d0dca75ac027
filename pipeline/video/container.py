"""Open a video file safely, pick its film, and look through its packets. Nothing is decoded here.

Safety: the file is opened by descriptor, so that its name can never be an option, a pattern or a
protocol; only demuxers that read one file and nothing else are allowed. Source:
docs/specs/preprocessing.md, sections 3.3 to 3.5; docs/specs/reliability.md, section 1.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import ItemError, SystemRefused
from pipeline.video.frame_rule import Limits
from pipeline.video.structure import declared_end, opens_other_files
from pipeline.video.timeline import UNKNOWN_RATE, Timing

OPEN_FILES = ("/dev/fd", "/proc/self/fd")  # where Linux names the files that a process has open
FORMATS = (
    "mov,matroska,avi,flv,live_flv,kux,asf,asf_o,mpeg,mpegts,mpegvideo,h264,hevc,evc,vvc,av1,obu,"
    "m4v,h261,h263,vc1,vc1test,cavsvideo,avs2,avs3,dirac,dnxhd,mjpeg,mjpeg_2000,mpjpeg,ogg,gif,"
    "apng,nut,nuv,mxf,gxf,dv,ivf,yuv4mpegpipe,rm,ivr,nsv,swf,wtv,pva,ty,rl2,roq,smk,bink,bfi,"
    "film_cpk,flic,4xm,ea,idcin,psxstr,thp,wc3movie,mtv,mv,mm,mvi,iv8,cine,r3d,fits,dhav,dxa,lxf,"
    "mlv,paf,vivo,viv,vmd,xmv,yop,jv,siff,lmlm4,usm,frm,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,"
    "webp_pipe,gif_pipe,jpegxl_pipe,jpegxl_anim,j2k_pipe,ppm_pipe,pgm_pipe,ico,mp3,aac,ac3,ac4,"
    "eac3,dts,dtshd,truehd,mlp,flac,wav,w64,aiff,au,caf,amr,ape,mpc,mpc8,tak,tta,wv,shn,oma,voc,"
    "xwma,srt,webvtt,ass,sami,lrc,subviewer,microdvd,mpl2,sup,ffmetadata"
)
_KEPT_BYTES = (
    64 << 20
)  # packets of a clip stay in memory up to this size, else the file is read twice
_MAX_READ_ERRORS = 100
_STATES_DURATION = frozenset({"matroska", "flv", "nut", "mxf", "asf"})
_UNKNOWN_TICK = Fraction(1, 1000)
_NOT_FILMS = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails

av.logging.set_libav_level(
    av.logging.PANIC
)  # libav would print every fault of every file to stderr


@dataclass
class OpenVideo:
    """The film of an open file. size: its bytes; declared: the bytes it should have at least, None
    if nobody knows.
    """

    container: InputContainer
    stream: VideoStream
    timing: Timing
    size: int
    declared: int | None

    @property
    def is_cut_short(self) -> bool:
        return self.declared is not None and self.declared > self.size

    def lost_packets(self, found: "Scan") -> int:
        """Return how many packets the index of the file lists beyond those that were read."""
        entries = self.stream.index_entries
        if len(entries) <= found.count:  # many formats list key frames only
            return 0
        return max(0, sum(entry.size > 0 for entry in entries) - found.count)

    def ends_early(self, found: "Scan") -> bool:
        """Return whether the header promises clearly more seconds than were read.

        Only for containers that state their duration; elsewhere libav estimates it from the data
        themselves.
        """
        promised = (self.container.duration or 0) / av.time_base
        states_it = any(name in _STATES_DURATION for name in self.container.format.name.split(","))
        return states_it and promised - found.seconds > max(1.0, promised / 20)


@dataclass
class Scan:
    """What the packets of the film say, in decoding order. packets: None if they were too many
    bytes to keep.

    stamps: times of the frames that will come out, None if one is missing. seconds: from the first
    packet of any stream to the end of the last. faults: read errors and corrupt packets.
    """

    packets: list[Packet] | None = field(default_factory=list)
    count: int = 0
    stamps: list[int] | None = field(default_factory=list)
    starts_with_key: bool = False
    ascending: bool = True
    seconds: float = 0.0
    faults: int = 0

    _kept_bytes: int = 0

    def add(self, packet: Packet) -> None:
        """Take in the next packet of the film."""
        if self.count == 0:
            self.starts_with_key = packet.is_keyframe
        self.count += 1
        self.faults += packet.is_corrupt
        self._keep(packet)
        if packet.is_discard or self.stamps is None:
            return
        if packet.pts is None:
            self.stamps = None
            return
        self.ascending = self.ascending and (not self.stamps or packet.pts > self.stamps[-1])
        self.stamps.append(packet.pts)

    def _keep(self, packet: Packet) -> None:
        self._kept_bytes += packet.size
        if self._kept_bytes > _KEPT_BYTES:
            self.packets = None
        if self.packets is not None:
            self.packets.append(packet)


@contextlib.contextmanager
def open_video(source: Path | bytes, limits: Limits) -> Iterator[OpenVideo]:
    """Open the film of `source`.

    Raises ItemError: empty, unreadable, forbidden_format, no_video_stream, too_large, io_error.
    """
    with contextlib.ExitStack() as stack:
        file, size, head = _readable(source, stack)
        if size == 0:
            raise ItemError("empty", "the file has 0 bytes")
        container = stack.enter_context(_container(file, head, limits))
        stream = _film(container)
        codec = stream.codec_context
        if codec.width * codec.height > limits.max_pixels:
            raise _too_large(codec.width, codec.height, limits)
        codec.thread_count, codec.thread_type = 1, "NONE"
        codec.options = codec.options | {"max_pixels": str(_decoder_pixels(limits))}
        rate = stream.average_rate or stream.guessed_rate or UNKNOWN_RATE
        timing = Timing(Fraction(stream.time_base or _UNKNOWN_TICK), 1 / Fraction(rate))
        yield OpenVideo(
            container, stream, timing, size, declared_end(file, container.format.name, size)
        )


def check_frame(width: int, height: int, limits: Limits) -> None:
    """ItemError("too_large") for a decoded frame that is larger than its header said."""
    if width * height > limits.max_pixels:
        raise _too_large(width, height, limits)


def _too_large(width: int, height: int, limits: Limits) -> ItemError:
    return ItemError(
        "too_large", f"frames of {width}x{height} have more than {limits.max_pixels:,} pixels"
    )


def _decoder_pixels(limits: Limits) -> int:
    # decoders round up to whole blocks, so their own check needs some room; ours is exact
    return limits.max_pixels + limits.max_pixels // 8 + (1 << 16)


def address_of(fd: int) -> str:
    """Return the name by which FFmpeg opens a file that is open here: what was checked is what it
    reads, whatever the file is called.

    Raises SystemRefused where the system has no such names (a chroot without /proc).
    """
    for folder in OPEN_FILES:
        if Path(folder, str(fd)).exists():
            return f"file:{folder}/{fd}"
    raise SystemRefused(
        f"an open file has no name: there is neither {' nor '.join(OPEN_FILES)}",
        where="/proc",
        fix="Mount it (mount -t proc proc /proc); python cli.py doctor looks for it.",
    )


def _readable(
    source: Path | bytes, stack: contextlib.ExitStack
) -> tuple[str | io.BytesIO, int, bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source), len(source), source[:4096]
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not block
        stack.callback(os.close, fd)
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ItemError("io_error", "not a regular file")
        return address_of(fd), facts.st_size, os.pread(fd, 4096, 0)
    except OSError as error:
        raise ItemError("io_error", f"cannot be opened: {error.strerror}") from error


def _container(file: str | io.BytesIO, head: bytes, limits: Limits) -> InputContainer:
    options = {"format_whitelist": FORMATS, "max_pixels": str(_decoder_pixels(limits))}
    if isinstance(file, str):
        options["protocol_whitelist"] = "file"
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        if opens_other_files(head):
            message = (
                "a playlist or script that opens other files; such files are refused, whatever"
                " their name"
            )
            raise ItemError("forbidden_format", message) from error
        is_foreign = isinstance(error, av.InvalidDataError)
        what = (
            "no known video format, or the header is missing"
            if is_foreign
            else "its header is malformed"
        )
        raise ItemError("unreadable", what) from error
    except (MemoryError, ValueError, IndexError) as error:
        raise ItemError("unreadable", "its header is malformed") from error


def _film(container: InputContainer) -> VideoStream:
    """Return the largest video stream; pictures attached to a sound file are not film. The first
    one wins ties.
    """
    films = [s for s in container.streams.video if not s.disposition & _NOT_FILMS]
    decodable = [s for s in films if s.codec_context is not None]
    if decodable:
        return max(
            decodable, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index)
        )
    if films:
        raise ItemError("unreadable", "the codec of its video stream is not known")
    what = "only an attached picture" if container.streams.video else "no video stream"
    raise ItemError("no_video_stream", f"{what} among {len(container.streams)} streams")


def packets_of(video: OpenVideo, every_stream: bool = False) -> Iterator[Packet | Exception]:
    """Yield the packets of the film (or of all streams), and the errors between them. Reading goes
    on after an error.
    """
    chosen = () if every_stream else (video.stream,)
    for _ in range(_MAX_READ_ERRORS):
        try:
            for packet in video.container.demux(*chosen):
                # the last ones are empty and mean "flush"; in the middle they mean "nothing new"
                if packet.size:
                    yield packet
            return
        except av.FFmpegError as error:
            yield error
        except (
            IndexError
        ):  # PyAV, at the very end, when streams turned up that were not there at the beginning
            return


def scan(video: OpenVideo) -> Scan:
    """Read every packet once."""
    result, film = Scan(), video.stream.index
    ticks = {stream.index: stream.time_base for stream in video.container.streams}
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for packet in packets_of(video, every_stream=True):
        if isinstance(packet, Exception):
            result.faults += 1
            continue
        index, stamp = packet.stream_index, packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            starts[index] = min(starts.get(index, stamp), stamp)
            ends[index] = max(ends.get(index, stamp), stamp + (packet.duration or 0))
        if index == film:
            result.add(packet)
    timed = [i for i in starts if ticks.get(i)]
    if timed:
        result.seconds = float(
            max(ends[i] * ticks[i] for i in timed) - min(starts[i] * ticks[i] for i in timed)
        )
    return result
