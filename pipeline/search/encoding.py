"""Windows of videos -> rows of an index, by the model of its checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.opening import kind_of_weights, open_any
from pipeline.feeding.inputs import choose_device
from pipeline.feeding.windows import Windows
from pipeline.stores.index.reader import SUMMARY

_CPU_WINDOWS = 16  # of one video at once
_GPU_WINDOWS = 32  # of several videos at once, always so many: then results do not depend on which

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What is known of a model without loading it. options: of the frames of its recipe.
    kind, recipe: how `open_any` opens it again.
    """

    video: str
    frames: int
    size: int
    dim: int
    options: Mapping[str, object]
    statistics: bool
    model: str
    kind: str
    recipe: Mapping[str, object] | str


class Encoder:
    """The model of a checkpoint on its device; loaded with the first need. recipe: of a published
    file or a CLIP.
    """

    def __init__(self, checkpoint: Path, recipe: str = "", device: str = "auto"):
        self._checkpoint, self._recipe, self._device_name = checkpoint, recipe, device

    @cached_property
    def _opened(self) -> tuple[RetrievalModel, ModelInfo]:
        model, info = open_any(self._checkpoint, self.kind, self._recipe)
        return model.to(choose_device(self._device_name)), info

    @cached_property
    def kind(self) -> str:
        """Whose weights the checkpoint holds."""
        return kind_of_weights(self._checkpoint)

    @property
    def model(self) -> RetrievalModel:
        return self._opened[0]

    @property
    def info(self) -> ModelInfo:
        return self._opened[1]

    @property
    def facts(self) -> Facts:
        inputs, info = self.model.inputs, self.info
        return Facts(
            video=inputs.video,
            frames=inputs.frames,
            size=inputs.size,
            dim=int(info.facts.get("feature_dim") or 0),
            options=info.recipe.train.frames.model_dump(mode="json"),
            statistics=bool(self._needs_statistics()),
            model=info.recipe.model,
            kind=self.kind,
            recipe=info.recipe.resolve() if self.kind == "clip" else self._recipe,
        )

    def as_dict(self) -> dict:
        """`facts` as plain values."""
        return asdict(self.facts)

    @torch.inference_mode()
    def windows(self, videos: Sequence[Windows]) -> list[Arrays]:
        """Return the arrays of the windows of each video. On a CPU they do not depend on what else
        is encoded, because nothing shares a batch; on a GPU because batches have one size.
        """
        if self._device.type == "cpu":
            return [self._joined(self._batches(video)) for video in videos]
        return self._across(videos)

    @torch.inference_mode()
    def features(self, rows: np.ndarray, parts: Sequence[slice]) -> Arrays:
        """Return the arrays of parts of one video's features (T, F); parts of equal length at once,
        so that there is no padding.
        """
        found: list[Arrays | None] = [None] * len(parts)
        lengths = [part.stop - part.start for part in parts]
        for length in dict.fromkeys(lengths):
            places = [n for n, own in enumerate(lengths) if own == length]
            values = np.stack([rows[parts[n]] for n in places]).astype(np.float32)
            real = torch.ones(values.shape[:2], dtype=torch.bool)
            encoded = self._encoded({"features": torch.from_numpy(values), "video_mask": real})
            for place, n in enumerate(places):
                found[n] = {name: array[place : place + 1] for name, array in encoded.items()}
        return self._joined(found)

    def _batches(self, video: Windows) -> list[Arrays]:
        starts = range(0, len(video.index), _CPU_WINDOWS)
        return [self._encoded(_batch(video, slice(n, n + _CPU_WINDOWS))) for n in starts]

    def _across(self, videos: Sequence[Windows]) -> list[Arrays]:
        counts = [len(video.index) for video in videos]
        places = [(v, n) for v, count in enumerate(counts) for n in range(count)]
        parts = []
        for start in range(0, len(places), _GPU_WINDOWS):
            some = places[start : start + _GPU_WINDOWS]
            filled = some + some[-1:] * (_GPU_WINDOWS - len(some))
            ones = [_batch(videos[v], slice(n, n + 1)) for v, n in filled]
            batch = {name: torch.cat([one[name] for one in ones]) for name in ones[0]}
            parts.append({k: v[: len(some)] for k, v in self._encoded(batch).items()})
        whole = self._joined(parts)
        bounds = np.cumsum([0, *counts])
        return [
            {name: array[bounds[v] : bounds[v + 1]] for name, array in whole.items()}
            for v in range(len(videos))
        ]

    def _encoded(self, batch: Mapping[str, torch.Tensor]) -> Arrays:
        model = self.model
        moved = {name: value.to(self._device) for name, value in batch.items()}
        encoding = model.encode_video(moved, self._shared)
        arrays = {} if model.summaries == "none" else {SUMMARY: model.summary(encoding)}
        if model.summaries != "score":
            arrays |= encoding
        return {name: _plain(value) for name, value in arrays.items()}

    @cached_property
    def _shared(self) -> Encoding:
        return self.model.prepare()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _needs_statistics(self) -> dict[str, float]:
        names = ("latent", "concept", "similarity")
        return self.model.statistics({name: torch.zeros(1, 1) for name in names})

    @staticmethod
    def _joined(parts: Sequence[Arrays]) -> Arrays:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batch(video: Windows, rows: slice) -> dict[str, torch.Tensor]:
    index, real = video.index[rows], video.real[rows]
    mask = np.arange(index.shape[1]) < real[:, None]
    return {"frames": torch.from_numpy(video.frames[index]), "video_mask": torch.from_numpy(mask)}


def _plain(value: torch.Tensor) -> np.ndarray:
    if value.dtype == torch.bool:
        return value.cpu().numpy()
    return value.detach().float().cpu().numpy()
