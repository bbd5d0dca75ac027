"""A picture of what a model sees of a video: its frames in a grid, with numbers and captions; and
their patches.

Source of patches and of the grey cover over tokens that were not kept: docs/specs/preprocessing.md,
section 1.5 (the published visualize_video.py and patch_video.py of CenterCLIP and DGL).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.colours import INK, MUTED, PAPER, rgb
from pipeline.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

PATCH = 32
_COVER, _OPACITY = 192, 170 / 255  # grey level over what was not kept, and how much of it shows
_COLUMNS = 6
_GAP = 8
_LABEL = 20
_MARGIN = 16
_PAPER = rgb(PAPER)


def sheet(
    images: np.ndarray,
    labels: Sequence[str],
    title: str,
    captions: Sequence[str] = (),
    columns: int = _COLUMNS,
) -> "Image":
    """uint8 (T, H, W, 3) as a grid of at most `columns`, a label below each, the title above,
    captions at the end.
    """
    from PIL import Image, ImageDraw

    height, width = images.shape[1:3]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    bold, plain = _font(17), _font(13)
    page_width = max(2 * _MARGIN + columns * (width + _GAP) - _GAP, 480)
    lines = [
        line
        for text in captions
        for line in _wrapped(f"• {_printable(text)}", plain, page_width - 2 * _MARGIN)
    ]
    heads = _wrapped(_printable(title), bold, page_width - 2 * _MARGIN)
    top = _MARGIN + 24 * len(heads) + 4
    bottom = top + rows * (height + _LABEL + _GAP)
    page = Image.new("RGB", (page_width, bottom + 19 * len(lines) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    for n, line in enumerate(heads):
        draw.text((_MARGIN, _MARGIN + 24 * n), line, INK, bold)
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        x = _MARGIN + (n % columns) * (width + _GAP)
        y = top + (n // columns) * (height + _LABEL + _GAP)
        page.paste(Image.fromarray(np.ascontiguousarray(image)), (x, y))
        draw.text((x, y + height + 2), label, MUTED, plain)
    for n, line in enumerate(lines):
        draw.text((_MARGIN, bottom + 19 * n), line, INK, plain)
    return page


def covered(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a copy of uint8 (T, S, S, 3) with grey over every 32 x 32 patch that was not kept.

    kept: int (segments, n), ids of a segment's patches: frame in the segment * patches of a frame +
    row * columns + column. DataError if they do not fit the frames.
    """
    side = images.shape[1] // PATCH
    n_segments = len(kept) if kept.ndim == 2 else 0
    if not n_segments or len(images) % n_segments or kept.dtype.kind not in "iu":
        raise DataError(
            f"{kept.dtype} of shape {kept.shape} is not one row of patch ids per segment of"
            f" {len(images)} frames",
            where="kept tokens",
            fix=(
                "Give an integer array (segments, kept); the segments must divide the frames"
                " evenly."
            ),
        )
    per_segment = len(images) // n_segments * side * side
    if kept.min() < 0 or kept.max() >= per_segment:
        raise DataError(
            f"patch ids from {kept.min()} to {kept.max()}; a segment has {per_segment:,} patches",
            where="kept tokens",
            fix="Are these ids of frames of this size, counted from 0 without the class token?",
        )
    shows = np.zeros((n_segments, per_segment), bool)
    np.put_along_axis(shows, kept.astype(np.int64), True, axis=1)
    cells = shows.reshape(len(images), side, side).repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    grey = np.round(images * (1 - _OPACITY) + _COVER * _OPACITY).astype(np.uint8)
    result = images.copy()
    area = result[:, : side * PATCH, : side * PATCH]
    area[~cells] = grey[:, : side * PATCH, : side * PATCH][~cells]
    return result


def cover(image: np.ndarray, shows: np.ndarray) -> np.ndarray:
    """Return a copy of uint8 (S, S, 3) with grey over the patches that do not show: bool (n, n).

    Pixels that no whole patch reaches are covered with the last one.
    """
    side = -(-image.shape[0] // len(shows))
    cells = shows.repeat(side, axis=0).repeat(side, axis=1)[: image.shape[0], : image.shape[1]]
    grey = np.round(image * (1 - _OPACITY) + _COVER * _OPACITY).astype(np.uint8)
    return np.where(cells[..., None], image, grey)


def patches(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the 32 x 32 tiles of uint8 (H, W, 3), column by column, as views; what is left at the
    edges is left out.
    """
    for x in range(0, image.shape[1] - PATCH + 1, PATCH):
        for y in range(0, image.shape[0] - PATCH + 1, PATCH):
            yield image[y : y + PATCH, x : x + PATCH]


def _font(size: int) -> "FreeTypeFont":
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    # captions come in many scripts; this font knows more of them than Pillow's own
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _printable(text: str) -> str:
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _wrapped(text: str, font: "FreeTypeFont", width: int) -> list[str]:
    """Lines that are no wider than `width` pixels; a single longer word is cut."""
    lines = [""]
    for word in text.split(" "):
        while len(word) > 1 and font.getlength(f"{lines[0][:1]} {word}") > width:
            word = word[: len(word) * 3 // 4]
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append(word)
    return [line for line in lines if line]
