"""What a visitor may ask: sentences with signs and weights, and videos by their ids; never a path.

The command line takes names of files in a query. A page must not: whether a file exists is nobody's
business who asks over a network.
"""

import re
from collections.abc import Sequence

from pipeline.errors import ConfigError
from pipeline.search.question import Part

_LONGEST = 10_000  # letters
_SIGNED = re.compile(r'\s+([+-])\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')  # signs outside quotes
_WEIGHT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(.+)", re.DOTALL)
_EXAMPLE = 'For example: a dog runs, or: "2:a dog" - "fruit".'


def sentences(text: str) -> list[Part]:
    """Return the parts of `"2:a dog" + "a pool" - fruit`; without signs it is one sentence.

    Raises ConfigError for nothing, a sign with nothing behind it, or more letters than any model
    reads.
    """
    if len(text) > _LONGEST:
        raise ConfigError(
            f"a query of {len(text):,} letters", where="q", fix=f"Write at most {_LONGEST:,}."
        )
    pieces = _SIGNED.split(f"{text.lstrip()} ")
    signed = [(1.0, pieces[0])]
    for sign, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        signed.append((1.0 if sign == "+" else -1.0, piece))
    return [_part(sign, piece.strip().strip('"').strip()) for sign, piece in signed]


def question(text: str, like: Sequence[str], unlike: Sequence[str]) -> list[Part]:
    """Words, videos that are wanted and videos that are not, as one question.

    Raises ConfigError if the query is empty, and as `sentences`.
    """
    parts = sentences(text) if text.strip() else []
    parts += [Part("video", video_id) for video_id in like]
    parts += [Part("video", video_id, -1.0) for video_id in unlike]
    if not parts:
        raise ConfigError("the query is empty", where="q", fix=f"Write a sentence. {_EXAMPLE}")
    return parts


def _part(sign: float, text: str) -> Part:
    weight = 1.0
    if found := _WEIGHT.fullmatch(text):
        weight = float(found[1])
        text = found[2].strip()
    if not text or not weight:
        raise ConfigError("a part of the query is empty", where="q", fix=_EXAMPLE)
    return Part("words", text, sign * weight)
