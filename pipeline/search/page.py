"""Answers as one HTML file: a contact sheet with a picture of the moment, its time and its path."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.pages.render import render
from pipeline.search.answers import Answers, VideoAnswer, span_words, tie_words
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule
from pipeline.video.frame_times import frame_times
from pipeline.video.reader import iterate_clip
from pipeline.visible import one_line

_HEIGHT = 150


def contact_sheet(found: Sequence[tuple[str, Answers]]) -> str:
    """Return a page that needs nothing beside it. found: questions and their answers.

    Every foreign text is escaped; a video that is gone has no picture, and its answer says so.
    """
    pictures: dict[tuple[str, float], str] = {}
    questions = [
        {
            "words": one_line(question),
            "answers": [_shown(answer, pictures) for answer in answers],
            "said": [
                one_line(line)
                for line in (f"searched {answers.searched}", *tie_words(answers.answers))
            ],
        }
        for question, answers in found
    ]
    title = questions[0]["words"] if len(questions) == 1 else "Answers"
    return render("answers", title=title, questions=questions)


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


def _shown(answer: VideoAnswer, pictures: dict[tuple[str, float], str]) -> dict:
    """Return what the page shows of an answer. pictures: drawn already, by path and time."""
    path = Path(answer.path)
    key = (answer.path, answer.start)
    if key not in pictures:
        is_there = answer.path and path.is_file()
        data = draw_moment(path, answer.start, answer.end) if is_there else None
        pictures[key] = "" if data is None else base64.b64encode(data).decode()
    return {
        "name": one_line(answer.video_id),
        "time": span_words(answer),
        "score": f"{answer.score:.4f}",
        "rank": answer.rank,
        "path": one_line(answer.path),
        "picture": pictures[key],
        "missing": "the file is gone" if answer.path else "no file is known",
    }
