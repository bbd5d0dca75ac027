"""Results of `evaluate`, asked for videos or captions as the command asks them."""

from pathlib import Path

from models.base import RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.recipes.options import FrameOptions
from pipeline.search.answers import Answers
from pipeline.search.collection import Evaluated
from pipeline.search.question import Part
from pipeline.search.search import Hit, Searcher, captions_of, of_results


def search_text(
    model: RetrievalModel, info: ModelInfo, folder: Path, query: str, top: int | None
) -> Answers:
    """The `top` videos for a sentence."""
    return Searcher(of_results(model, info, folder), top).search([Part("words", query)])[0]


def search_video(
    model: RetrievalModel, folder: Path, video_id: str, features: Path | None, top: int
) -> list[Hit]:
    """The `top` captions for a video."""
    found = Evaluated(folder, model)
    return captions_of(found, model, video_id, features, top, FrameOptions())
