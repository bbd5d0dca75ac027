"""The video that `explain` is about: of results, of a step, or a file of one's own."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.state import read_manifest
from pipeline.errors import ConfigError, DataError, ItemError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.base import Encoding, RetrievalModel
    from pipeline.checkpoints.model_file import ModelInfo

_RECIPE_STEP = "a features step, whose networks read the file"


@dataclass(frozen=True)
class OneVideo:
    """What the command line says of a video.

    name: its id, or a file. checkpoint: of the model; results: where it was evaluated; features: a
    BigFile, or the features step whose networks read a file; frames: a step that holds frames.
    """

    name: str
    checkpoint: Path
    results: Path | None
    features: Path | None
    frames: Path | None

    @property
    def file(self) -> Path | None:
        """The file that is named, if it is one."""
        path = Path(self.name).expanduser()
        return path if path.is_file() else None

    def pictures(self, model: "RetrievalModel", info: "ModelInfo") -> "dict[str, Tensor] | None":
        """Return a batch of its frames as the model is tested on it, or None if neither a file nor
        --frames is given. Raises TvrError for what cannot be read.
        """
        if self.frames is not None:
            from pipeline.explain.word_match import read_frames

            return read_frames(model, info, self.frames, self.name)
        if self.file is None:
            return None
        from pipeline.search.encode_file import frames_of_file

        return frames_of_file(model, self.file, info.recipe.train.frames)

    def encoding(self, model: "RetrievalModel", info: "ModelInfo") -> "Encoding":
        """Return what the model makes of it, of one row. Raises TvrError for what cannot be
        read.
        """
        import torch

        from pipeline.evaluation.locate import find_results
        from pipeline.explain.word_match import evaluated
        from pipeline.search.encode_file import encode_features, encode_file, encode_rows

        with torch.inference_mode():
            if self.file is None and self.features is not None:
                return encode_features(model, self.features, self.name)
            if self.file is None:
                return evaluated(find_results(self.checkpoint, self.results), self.name)
            if model.inputs.video == "frames":
                return encode_file(model, self.file, info.recipe.train.frames)
            return encode_rows(model, features_of_file(self.file, self._features_step()))

    def _features_step(self) -> Path:
        """Return the features step that is named, or the only one in the nearest folder that has
        any.
        """
        if self.features is not None:
            return self.features
        folders = map(_steps, self.checkpoint.resolve().parents[:4])
        near = next(filter(None, folders), [])
        if len(near) == 1:
            return near[0]
        found = f"there are {len(near)} of them" if near else "there is none"
        raise ConfigError(
            f"the model reads features, and {self.name} is a file: near the checkpoint {found}",
            where="--video",
            fix=f"Name {_RECIPE_STEP}: --features STEP.",
        )


def features_of_file(file: Path, step: Path) -> "np.ndarray":
    """Features of the frames of a file, float32 (T, F), as a finished features step makes them.

    Raises ConfigError for another step or for weights that are gone, DataError for a file that
    cannot be read.
    """
    from pipeline.core.stage import Item
    from pipeline.datasets.parts.sources import Source
    from pipeline.stages.features import Options, Stage

    manifest = read_manifest(step) or {}
    if manifest.get("stage") != "features":
        raise ConfigError(
            f"made by {manifest.get('stage') or 'no step of this toolkit'}, so how a file becomes"
            " such features is not known",
            where=step,
            fix=f"Name {_RECIPE_STEP}.",
        )
    options = Options.model_validate(manifest["options"] | {"device": "cpu"})
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(options, {}, Path(folder))
        source = Source(file.stem, file, "file")
        try:
            outcome = stage.process(Item(file.stem, "file", source, str(file)))
        except ItemError as error:
            raise DataError(
                f"its frames cannot be read: {error}",
                where=file,
                fix="Give a video file that plays.",
            ) from error
        finally:
            stage.close()
    return outcome.value.values


def _steps(folder: Path) -> list[Path]:
    try:
        steps = sorted(step for step in folder.iterdir() if step.is_dir())
    except OSError:
        return []
    return [step for step in steps if (read_manifest(step) or {}).get("stage") == "features"]
