"""Clips and pictures that visitors send: decoded by a supervised worker, then forgotten.

A file of a stranger is opened in a process of its own, with a limit of time and memory, which
writes a small clean clip or picture. Only that is read by the process that serves.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core import stage
from pipeline.core.stage import Item, Outcome
from pipeline.core.work.settings import Settings
from pipeline.core.work.workers import answers
from pipeline.errors import DataError, ItemError
from pipeline.search.question import Part

_SECONDS = 60.0
_MOST_PIXELS = 1 << 26
_SIDE = 1024  # pixels of a picture that is kept
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


class Stage(stage.Stage):
    """One upload: a small clip (clip.mp4) or picture (picture.png) in `out`."""

    runs = "workers"

    def process(self, item: Item) -> Outcome:
        path: Path = item.payload
        head = path.open("rb").read(16)
        if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
            return Outcome(facts={"name": _picture(path, self.out)})
        from pipeline.video.compress import Options, compress

        compress(path, self.out, "clip.mp4", Options(fps=3, short_side=256))
        return Outcome(facts={"name": "clip.mp4"})

    def timeout(self, item: Item) -> float:
        return _SECONDS


@contextmanager
def understood(upload: Path) -> Iterator[Part]:
    """What an uploaded file asks for, as long as the block runs.

    Raises DataError for a file that is neither a film nor a picture, or that is hostile.
    """
    with tempfile.TemporaryDirectory(prefix="tvrkit-upload-") as folder:
        work = Stage(Stage.Options(), {}, Path(folder))
        item = Item("upload", "upload", payload=upload)
        (answer,) = answers(work, [item], Settings(jobs=1, retries=0, memory_bytes=2 << 30))
        if answer.error is not None:
            said = answer.error.message if isinstance(answer.error, ItemError) else "refused"
            raise DataError(
                f"it cannot be read: {said}", where="upload", fix="Send a film or a picture."
            )
        name = answer.outcome.facts["name"]
        kind = "video" if name.endswith(".mp4") else "picture"
        yield Part(kind, str(Path(folder) / name))


def _picture(path: Path, out: Path) -> str:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ItemError("too_large", f"{image.width:,} x {image.height:,} pixels")
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((_SIDE, _SIDE))
            upright.save(out / "picture.png")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise ItemError("unreadable", "its pixels do not decode") from error
    return "picture.png"
