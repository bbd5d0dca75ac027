"""What the command line of `search` says."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.search import question
from pipeline.search.question import Part


@dataclass(frozen=True)
class Request:
    """The command line."""

    target: Path
    query: tuple[str, ...]
    video: str | None
    image: Path | None
    queries: Path | None
    prompt: bool
    index: int | None
    top: int
    min_score: float | None
    paths: str
    per_video: int
    exact: bool
    root: Path | None
    checkpoint: Path | None
    videos: Path | None
    features: Path | None
    records: Path | None
    template: str
    html: Path | None
    as_json: bool

    def parts(self) -> list[Part]:
        """Return what is asked for, as far as the command line says."""
        parts = question.parse_words(self.query) if self.query else []
        if self.video is not None:
            parts.append(question.video_part(self.video))
        if self.image is not None:
            parts.append(question.picture_part(self.image))
        return parts
