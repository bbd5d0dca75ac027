"""Answers: what was found, how far it can be trusted, and how it is printed."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.search.collection import Collection
from pipeline.search.question import shown
from pipeline.search.ranking import Ranked, are_equal
from pipeline.stores.index.reader import Place


@dataclass(frozen=True)
class VideoAnswer:
    """One answer. rank from 1; tied: how many rows have this score, up to rounding. row: of the
    collection. start, end: seconds; end None: the end of the video.
    """

    rank: int
    score: float
    video_id: str
    path: str
    start: float
    end: float | None
    tied: int = 1
    row: int = -1

    @property
    def label(self) -> str:
        return self.video_id

    def plain(self) -> dict[str, object]:
        """As JSON shows it."""
        return {
            "rank": self.rank,
            "score": self.score,
            "video": self.video_id,
            "path": self.path,
            "start": self.start,
            "end": self.end,
            "tied": self.tied,
        }


@dataclass(frozen=True)
class Answers:
    """The answers to one question. searched: in words. videos, windows: how many were searched.
    chosen: rows that the model itself scored, where summaries chose them; None where all rows were.
    """

    answers: list[VideoAnswer]
    searched: str
    videos: int
    windows: int
    chosen: int | None = None

    def __iter__(self) -> Iterator[VideoAnswer]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, place: int) -> VideoAnswer:
        return self.answers[place]

    def first(self, n: int) -> "Answers":
        """Return the best n of them."""
        return replace(self, answers=self.answers[:n])


def answers_of(
    collection: Collection,
    ranked: Ranked,
    wanted: np.ndarray | None = None,
    fit: tuple[str, np.ndarray] | None = None,
) -> Answers:
    """Return what a ranking means. wanted: bool (rows,), which rows were to be ranked, None: all.
    fit: the glob of --path and bool (rows,), what fits it.
    """
    found = [
        _answer(n, float(score), collection.place(int(row)), int(tied), int(row))
        for n, (row, score, tied) in enumerate(
            zip(ranked.rows, ranked.scores, ranked.tied, strict=True), start=1
        )
    ]
    n_wanted = collection.rows if wanted is None else int(wanted.sum())
    chosen = ranked.considered if ranked.considered < n_wanted else None
    searched, videos, windows = collection.described, collection.n_videos, collection.rows
    if fit is not None:
        glob, rows = fit
        videos, windows = len(np.unique(collection.videos[rows])), int(rows.sum())
        searched = f"{videos:,} (path {shown(glob)}) of {searched}"
    return Answers(found, searched, videos, windows, chosen)


def tie_words(answers: Sequence[VideoAnswer]) -> list[str]:
    """Return a line for each score that several rows share."""
    lines = []
    first = 0
    while first < len(answers):
        score, tied = answers[first].score, answers[first].tied
        last = first
        while last + 1 < len(answers) and are_equal(score, answers[last + 1].score):
            last += 1
        if tied > 1:
            ranks = [answers[first].rank, answers[last].rank]
            which = f"rank {ranks[0]}" if first == last else f"ranks {ranks[0]} to {ranks[-1]}"
            lines.append(
                f"a tie at {which}: {tied:,} windows have the score {score:.4f} up to rounding;"
                " their order says nothing"
            )
        first = last + 1
    return lines


def unknown_video(video_id: str, known: Sequence[str]) -> DataError:
    """Return what to say of a video that is none of the known ones."""
    if Path(video_id).is_file():
        fix = (
            "Extract its features first (python cli.py features --in FOLDER --out F), then: --video"
            " ID --features F."
        )
    else:
        near = difflib.get_close_matches(video_id, known, n=3)
        some = [shown(name) for name in (near or known[:5])]
        fix = (
            f"Did you mean {', '.join(some)}?"
            if near
            else f"There are {', '.join(some)}{' ...' if len(known) > 5 else ''}"
        )
    return DataError(
        f"no video {shown(video_id)} among the {len(known):,} known ones", where="--video", fix=fix
    )


def seconds_words(seconds: float) -> str:
    """ "1:02:03.5", "0:07": as people write times."""
    whole, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(whole), 60)
    last = f"{rest:04.1f}".removesuffix(".0")
    return f"{hours}:{minutes:02d}:{last}" if hours else f"{minutes}:{last}"


def span_words(answer: VideoAnswer) -> str:
    """ "0:10 to 0:20"; nothing where the whole video is meant and its length is unknown."""
    if answer.end is None:
        return "" if not answer.start else f"from {seconds_words(answer.start)}"
    return f"{seconds_words(answer.start)} to {seconds_words(answer.end)}"


def _answer(rank: int, score: float, place: Place, tied: int, row: int) -> VideoAnswer:
    return VideoAnswer(
        rank=rank,
        score=score,
        video_id=place.video_id,
        path=place.path,
        start=place.start,
        end=place.end,
        tied=tied,
        row=row,
    )
