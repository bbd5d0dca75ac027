"""What a tensor cache is made of: the frames of a frame store or of videos, the rows of a BigFile;
as arrays.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from pipeline.core.adopted import resolve
from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache
from pipeline.core.stage import Outcome
from pipeline.core.state import digest
from pipeline.datasets.parts.sources import Source, unusable, video_sources
from pipeline.errors import ItemError
from pipeline.stores.item_errors import as_item_error
from pipeline.video.crop import Fit, fit_square
from pipeline.video.sampling import choose_frames

if TYPE_CHECKING:
    from pipeline.stores.big_file.reader import BigFile
    from pipeline.stores.frame_store.reader import FrameStore


class FramesOptions(BaseModel, extra="forbid"):
    size: int = Field(224, ge=8, le=4096, description="pixels of the square a model sees")
    fit: Fit = Field(
        "resize_crop",
        description="scale the short side to `size` first, unless it is that already; or only crop",
    )
    max_frames: int | None = Field(
        None, ge=1, description="keep at most this many, evenly spaced; null keeps all"
    )


class FeaturesOptions(BaseModel, extra="forbid"):
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="float16 takes half the memory"
    )


class Listed(NamedTuple):
    """A video to cache. key: digest of its own input. source: its file, when there is no frame
    store.
    """

    video_id: str
    key: str
    source: Source | None = None


class FrameInput:
    """Frames as uint8 (T, size, size, 3), from a frame store (`store`) or straight from
    `videos`.
    """

    def __init__(
        self, store: Artefact | None, videos: Artefact | None, options: FramesOptions, digests: Path
    ):
        self._artefact = store
        self._videos = videos
        self._options = options
        self._digests = digests

    @cached_property
    def videos(self) -> list[Listed]:
        """In the order of the step that made the input."""
        if self._artefact is None:
            sources = video_sources(self._videos, self._digests).sources
            return [Listed(source.id, source.key, source) for source in sources]
        if self._artefact.manifest is not None:
            return [Listed(record.id, record.content) for record in self._artefact.records()]
        content = _content(self._artefact, self._store.path, self._digests)
        return [Listed(video_id, digest([content, video_id])) for video_id in self._store.ids]

    @property
    def holds_videos(self) -> bool:
        """Video files have to be decoded (from `videos`, or from a store of the published
        layout).
        """
        return self._artefact is None or self._store.layout == "mp4"

    @cached_property
    def n_bytes(self) -> int:
        """Size of all arrays together; for videos that no step of ours counted, what their headers
        claim.
        """
        known = {
            record.id: record.facts.get("frames")
            for record in (self._artefact or self._videos).records()
        }
        counts = (known.get(listed.video_id) or self._count(listed) for listed in self.videos)
        most = self._options.max_frames
        return sum(min(n, most or n) for n in counts) * self._options.size**2 * 3

    def load(self, video_id: str, source: Source | None) -> Outcome:
        """Return the array of a video. ItemError if it cannot be had."""
        options = self._options
        if source is not None:
            outcome = _decode(source)
            n, fps = len(outcome.value), outcome.facts["fps"]
            images = outcome.value[_kept(n, options.max_frames)]
        else:
            outcome = Outcome()
            with as_item_error():
                info = self._store.info(video_id)
                n, fps = info.frames, info.fps
                kept = _kept(n, options.max_frames) if options.max_frames else None
                images = self._store.read(video_id, kept)
        outcome.facts = {"fps": str((fps * len(images) / n).limit_denominator(100_000))}
        outcome.value = np.ascontiguousarray(fit_square(images, options.size, options.fit))
        return outcome

    @cached_property
    def _store(self) -> "FrameStore":
        from pipeline.stores.frame_store.reader import FrameStore

        return FrameStore.open(self._artefact.path)

    def _count(self, listed: Listed) -> int:
        if listed.source is None:
            return self._store.info(listed.video_id).frames
        from pipeline.video.reader import probe

        try:
            return 0 if listed.source.problem else probe(listed.source.path).frames or 0
        except ItemError:  # it will be set aside when its turn comes
            return 0


class FeatureInput:
    """Features as (T, F) rows of the wanted type, from a BigFile."""

    holds_videos = False

    def __init__(self, artefact: Artefact, options: FeaturesOptions, digests: Path):
        self._artefact, self._digests = artefact, digests
        self._dtype = np.dtype(options.dtype)

    @cached_property
    def videos(self) -> list[Listed]:
        """In row order."""
        known = {record.id: record.content for record in self._artefact.records()}
        ids = list(self._big_file.videos)
        if all(video_id in known for video_id in ids):
            return [Listed(video_id, known[video_id]) for video_id in ids]
        content = _content(
            self._artefact, resolve(self._artefact.path) / "feature.bin", self._digests
        )
        return [
            Listed(video_id, digest([content, video_id])) for video_id in ids
        ]  # adopted, or made elsewhere

    @cached_property
    def n_bytes(self) -> int:
        """Size of all arrays together."""
        rows = sum(map(len, self._big_file.videos.values()))
        return rows * self._big_file.dim * self._dtype.itemsize

    def load(self, video_id: str, source: Source | None = None) -> Outcome:
        """Return the rows of a video. ItemError("not_finite") if one holds NaN or infinity (as this
        type).
        """
        with as_item_error():
            rows = self._big_file.read_video(video_id)
        with np.errstate(
            over="ignore"
        ):  # what does not fit into float16 becomes infinite, and is reported
            rows = np.array(rows, dtype=self._dtype)
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        if bad:
            raise ItemError(
                "not_finite", f"{bad:,} of {len(rows):,} rows hold NaN or infinity as {self._dtype}"
            )
        return Outcome(value=rows)

    @cached_property
    def _big_file(self) -> "BigFile":
        from pipeline.stores.big_file.reader import BigFile

        return BigFile.open(self._artefact.path)


def _kept(n: int, most: int | None) -> np.ndarray:
    """Indices of at most `most` of n frames: the middles of equal segments, as published test
    sampling.
    """
    return choose_frames(n, min(n, most or n), "centers")[0]


def _decode(source: Source) -> Outcome:
    from pipeline.video.reader import FrameChoice, decode_clip

    if source.problem:
        raise unusable(source.problem, "unreadable")
    clip = decode_clip(source.path, FrameChoice("all"), moment=source.moment)
    facts = {"fps": clip.fps}
    return Outcome.of(clip, clip.images, facts)


def _content(artefact: Artefact, path: Path, digests: Path) -> str:
    """Digest of a store; of its file when no step of ours made it."""
    if artefact.content:
        return artefact.content
    cache = DigestCache(digests)
    value = cache(path)
    cache.save()
    return value
