"""Run the published compress command: built by ffmpeg-python, executed as an argument list, watched
and checked.

ffmpeg ends with code 0 on many damaged files and leaves a valid but short file when it is stopped,
so neither its exit code nor a file that decodes proves anything; see `damage_reported` and
`encode.verify`.
Source: docs/specs/preprocessing.md, section 1.1; docs/specs/reliability.md, section 1.
"""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg

from pipeline.errors import ConfigError, ItemError
from pipeline.video.container import FORMATS, address_of
from pipeline.video.encode import Encoding, repeatable
from pipeline.video.frame_rule import FrameChoice

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # looked up here, because little is safe to do between fork and exec
_KEPT_STDERR = 64 << 10


@dataclass(frozen=True)
class Job:
    """stream: index of the film among all streams of `source`. width, height: of the result,
    displayed orientation.
    """

    source: Path
    stream: int
    width: int
    height: int
    choice: FrameChoice
    encoding: Encoding


def executable() -> str:
    """Path of the system's ffmpeg, else of the one in imageio-ffmpeg. ConfigError if there is
    neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            "there is no ffmpeg program",
            where="engine ffmpeg",
            fix="Install ffmpeg or imageio-ffmpeg, or use pyav.",
        ) from error


def arguments(program: str, url: str, job: Job, target: Path) -> list[str]:
    """Return the argument list. With the rule `published` it is the published command, for one
    stream and one container.
    """
    scale = f"scale={job.width}:{job.height}"
    filters = scale if job.choice.rule == "published" else f"{_grid(job.choice.fps)},{scale}"
    source = ffmpeg.input(url, protocol_whitelist="file", format_whitelist=FORMATS)
    output = source.output(
        f"file:{target}",
        **{"filter:v": filters, "flags:v": "+bitexact"} | repeatable(),
        map=f"0:{job.stream}",
        r=str(job.choice.fps),
        vcodec="libx264",
        pix_fmt="yuv420p",
        crf=job.encoding.crf,
        preset=job.encoding.preset,
        g=job.encoding.gop,
        map_metadata="-1",
        movflags="+faststart",
        fflags="+bitexact",
        f="mp4",
    )
    return (
        output.global_args("-nostdin", "-loglevel", "error").overwrite_output().compile(cmd=program)
    )


def _grid(fps: Fraction) -> str:
    # round=up makes the filter show, in slot k, the last frame at or before k / fps
    return f"setpts=PTS-STARTPTS,fps=fps={fps}:round=up:start_time=0"


def run(job: Job, target: Path, seconds: float) -> str:
    """Run ffmpeg and return what it wrote to stderr (its last 64 KiB; "" when all was well).

    The program is killed after `seconds`, and by the kernel when this process dies.
    Raises ItemError: timeout, io_error, decode_errors; OSError when the disk is full or the
    file-size limit is reached.
    """
    fd = os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        command = arguments(executable(), address_of(fd), job, target)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[fd],
            # workers have one thread and a watcher, so that this is safe
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
        said = _wait(process, seconds)
    finally:
        os.close(fd)
    if process.returncode:
        raise _failure(process.returncode, said, target)
    return said


def _failure(code: int, said: str, target: Path) -> Exception:
    if code == -signal.SIGXFSZ:
        return OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(target))
    if os.strerror(errno.ENOSPC) in said:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    if code < 0:
        return ItemError("io_error", f"ffmpeg was ended by {signal.Signals(-code).name}")
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return ItemError("decode_errors", f"ffmpeg ended with code {code}: {last[0]}")


def _wait(process: subprocess.Popen, seconds: float) -> str:
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ItemError(
            "timeout", f"ffmpeg did not finish within {seconds:.0f} s and was stopped"
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return said[-_KEPT_STDERR:].decode(errors="replace")


def _die_with_parent() -> None:
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
