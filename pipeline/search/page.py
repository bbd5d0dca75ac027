"""Answers as one HTML file: a contact sheet with a picture of the moment, its time and its path."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.search.answers import Answers, VideoAnswer, span_words, tie_words
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule
from pipeline.video.frame_times import frame_times
from pipeline.video.reader import iterate_clip
from pipeline.visible import one_line

_HEIGHT = 150
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem;
     list-style: none; padding: 0 }
li { border: 1px solid #8886; border-radius: .5rem; overflow: hidden }
img, .none { display: block; width: 100%; height: 9.4rem; object-fit: contain; background: #111 }
.none { color: #ccc; display: grid; place-items: center }
p { margin: .4rem .6rem; overflow-wrap: anywhere }
.score { float: right; font-variant-numeric: tabular-nums }
.path, .said { opacity: .75; font-size: .85rem }
"""


def contact_sheet(found: Sequence[tuple[str, Answers]]) -> str:
    """Return a page that needs nothing beside it. found: questions and their answers.

    Every foreign text is escaped; a video that is gone has no picture, and its answer says so.
    """
    pictures: dict[tuple[str, float], bytes | None] = {}
    body = "".join(_section(question, answers, pictures) for question, answers in found)
    title = html.escape(one_line(found[0][0])) if len(found) == 1 else "Answers"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def draw_moment(path: Path, start: float, end: float | None) -> bytes | None:
    """Return a JPEG of the middle of a moment in a video file, or None if there is none to show."""
    try:
        times = frame_times(path, Limits())
        middle = (start + (times.seconds if end is None else end)) / 2
        number = int(abs(times.ms - 1000 * middle).argmin())
        size = SizeRule("short", _HEIGHT)
        reader = iterate_clip(path, FrameChoice("indices", indices=(number,)), size)
        frame = next(iter(reader), None)
    except (ItemError, OSError):
        return None
    if frame is None:
        return None
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame.image).save(data, "JPEG", quality=80)
    return data.getvalue()


def _section(question: str, answers: Answers, pictures: dict) -> str:
    items = "".join(_item(answer, pictures) for answer in answers)
    said = [f"searched {answers.searched}", *tie_words(answers.answers)]
    lines = "".join(f'<p class="said">{html.escape(one_line(line))}</p>' for line in said)
    return f"<h1>{html.escape(one_line(question))}</h1><ol>{items}</ol>{lines}"


def _item(answer: VideoAnswer, pictures: dict) -> str:
    name, time = html.escape(one_line(answer.video_id)), span_words(answer)
    score = f'<span class="score">{answer.score:.4f}</span>'
    path = html.escape(one_line(answer.path))
    return (
        f"<li>{_picture(answer, pictures, f'{name} {time}')}"
        f"<p>{score}{answer.rank}. {name}</p><p>{time}</p>"
        f'<p class="path">{path}</p></li>'
    )


def _picture(answer: VideoAnswer, pictures: dict, words: str) -> str:
    key = (answer.path, answer.start)
    if key not in pictures:
        is_there = answer.path and Path(answer.path).is_file()
        pictures[key] = (
            draw_moment(Path(answer.path), answer.start, answer.end) if is_there else None
        )
    data = pictures[key]
    if data is None:
        what = "the file is gone" if answer.path else "no file is known"
        return f'<div class="none">{what}</div>'
    coded = base64.b64encode(data).decode()
    return f'<img alt="{words.strip()}" src="data:image/jpeg;base64,{coded}">'
