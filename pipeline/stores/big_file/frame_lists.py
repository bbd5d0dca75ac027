"""Which frames belong to which video: the text of `video2frames.txt`, read by a literal parser and
never evaluated.

The published loaders run the file through `eval`. This parser knows one shape, {"video": ["frame",
...], ...} in Python spelling (either quote, u'' prefixes, escapes, trailing commas), so nesting and
calls cannot even be expressed.
Source: docs/specs/dual-encoding.md, section 9.1; danieljf24/hybrid_space: util/get_frameInfo.py for
the grouping of ids.
"""

import ast
import re
from collections.abc import Iterable, Iterator

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<mark>[{}\[\]:,])
      | [uU]?(?P<text>'[^'\\\n]*(?:\\.[^'\\\n]*)*' | "[^"\\\n]*(?:\\.[^"\\\n]*)*")
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_FRAME_ID = re.compile(r"(.+)_(\d{1,18})", re.DOTALL)


def parse_frame_lists(text: str) -> dict[str, list[str]]:
    """Return {video id: [frame id, ...]} in the order written. ValueError says where the text is
    something else.
    """
    tokens = _tokens(text)
    videos: dict[str, list[str]] = {}
    _expect(tokens, "{")
    kind, value, at = next(tokens)
    while (kind, value) != ("mark", "}"):
        video_id = _string(kind, value, at)
        if video_id in videos:
            raise ValueError(f"at character {at}: the video {video_id!r} is listed twice")
        _expect(tokens, ":")
        _expect(tokens, "[")
        videos[video_id] = _frames(tokens)
        kind, value, at = next(tokens)
        if (kind, value) == ("mark", ","):
            kind, value, at = next(tokens)
        elif (kind, value) != ("mark", "}"):
            raise ValueError(
                f"at character {at}: expected ',' or '}}', found {_shown(kind, value)}"
            )
    _expect(tokens, "")
    return videos


def group_frames(ids: Iterable[str]) -> dict[str, list[str]] | None:
    """Frame ids grouped by video, videos in order of first appearance, frames by number, or None if
    an id is not a frame id.

    A frame id is `<video>_<number>`, split at the last underscore, for the video id may hold
    underscores too.
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for frame_id in ids:
        match = _FRAME_ID.fullmatch(frame_id)
        if match is None:
            return None
        groups.setdefault(match[1], []).append((int(match[2]), frame_id))
    return {
        video_id: [frame_id for _, frame_id in sorted(frames)]
        for video_id, frames in groups.items()
    }


def _frames(tokens: Iterator[tuple[str, str, int]]) -> list[str]:
    frames: list[str] = []
    kind, value, at = next(tokens)
    while (kind, value) != ("mark", "]"):
        frames.append(_string(kind, value, at))
        kind, value, at = next(tokens)
        if (kind, value) == ("mark", ","):
            kind, value, at = next(tokens)
        elif (kind, value) != ("mark", "]"):
            raise ValueError(f"at character {at}: expected ',' or ']', found {_shown(kind, value)}")
    return frames


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(
                f"at character {position}: neither a quoted id nor one of {{}}[]:,"
                f" ({text[position : position + 40]!r})"
            )
        yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
        position = match.end()


def _expect(tokens: Iterator[tuple[str, str, int]], mark: str) -> None:
    kind, value, at = next(tokens)
    if value != mark or kind == "text":
        raise ValueError(
            f"at character {at}: expected {mark or 'the end'!r}, found {_shown(kind, value)}"
        )


def _string(kind: str, value: str, at: int) -> str:
    if kind != "text":
        raise ValueError(f"at character {at}: expected a quoted id, found {_shown(kind, value)}")
    if "\\" not in value:
        return value[1:-1]
    try:
        return ast.literal_eval(
            value
        )  # one quoted string, already matched: only its escapes are left to resolve
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"at character {at}: bad escape in {value[:40]}") from error


def _shown(kind: str, value: str) -> str:
    return "the end" if kind == "end" else repr(value[:40])
