"""tvrkit as a library: a dozen names, stable from one version to the next.

    import tvrkit

    model = tvrkit.load("best.pt")                       # or a published checkpoint, or a CLIP
    similarity = model.score(["a dog runs"], ["a.mp4", "b.mp4"])              # (1, 2)
    metrics = tvrkit.evaluate(similarity, [0])
    answers = tvrkit.Index("data/index").search("a dog runs", top=5)
    tvrkit.command("index", "--in", "videos", "--checkpoint", "best.pt", "--out", "data/index")
    tvrkit.run("mine-drl", set=["train.recipe.train.epochs=10"])

    FrameStore, BigFile, TensorCache     the stores that the stages write, to read
    TvrError                             every error that a user can act on

Importing it loads neither torch nor numpy; what a name needs is loaded with its first use.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "app"  # in a wheel; in a checkout the tree lies beside this folder
ROOT = _INSTALLED if _INSTALLED.is_dir() else _HERE.parent


def _use_own_tree() -> None:
    """Make `pipeline` and `models` ours. ImportError if the process has others of these names."""
    for name in ("pipeline", "models", "cli"):
        there = getattr(sys.modules.get(name), "__file__", None)
        if there and ROOT not in Path(there).resolve().parents:
            raise ImportError(
                f"tvrkit brings a module {name!r}, and this process has loaded another one from"
                f" {there}. Import tvrkit first, or rename that module."
            )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))


_use_own_tree()

from pipeline import __version__  # noqa: E402
from pipeline.errors import TvrError  # noqa: E402

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.base import RetrievalModel
    from pipeline.checkpoints.model_file import ModelInfo
    from pipeline.evaluation.retrieve import Encoded
    from pipeline.search.answers import VideoAnswer
    from pipeline.stores.big_file.reader import BigFile
    from pipeline.stores.frame_store.reader import FrameStore
    from pipeline.stores.tensor_cache.reader import TensorCache

__all__ = [
    "BigFile",
    "FrameStore",
    "Index",
    "Model",
    "TensorCache",
    "TvrError",
    "__version__",
    "command",
    "evaluate",
    "load",
    "run",
]
_STORES = {
    "FrameStore": "pipeline.stores.frame_store.reader",
    "BigFile": "pipeline.stores.big_file.reader",
    "TensorCache": "pipeline.stores.tensor_cache.reader",
}
_BATCH = 64  # texts encoded at once


def __getattr__(name: str) -> object:
    if name in _STORES:
        return getattr(importlib.import_module(_STORES[name]), name)
    raise AttributeError(f"module 'tvrkit' has no attribute {name!r}")


def load(checkpoint: str | Path, *, recipe: str = "", device: str = "auto") -> "Model":
    """Return the model of a checkpoint, ready to encode.

    checkpoint: best.pt, the folder of a train step, a file that one of the published programs
    wrote, or weights of a CLIP (ViT-B-32.pt). recipe: how such a foreign file is read. device:
    "auto", "cpu", "cuda:0". Raises TvrError for what is none of these.
    """
    from pipeline.checkpoints.opening import kind_of_weights, open_any
    from pipeline.feeding.inputs import choose_device

    path = Path(checkpoint).expanduser()
    model, info = open_any(path, kind_of_weights(path), recipe)
    return Model(model.to(choose_device(device)), info)


class Model:
    """A text encoder, a video encoder, and the score of every pair of their results.

    network: the torch module; info: its recipe, vocabulary and training.
    """

    def __init__(self, network: "RetrievalModel", info: "ModelInfo"):
        self.network = network
        self.info = info

    def __repr__(self) -> str:
        reads = self.network.inputs
        return f"tvrkit.Model({self.info.recipe.model}, reads {reads.text} and {reads.video})"

    def encode_text(self, texts: Sequence[str]) -> "dict[str, Tensor]":
        """Return tensors (n, ...) by name, float32 on the CPU, row i for text i.

        Words the model does not know count as unknown. Raises TvrError without any text.
        """
        import numpy as np

        if not texts:
            raise TvrError("there is no text to encode", fix='Give at least one: ["a dog runs"].')
        sentences = self.info.text_encoder.sentences(list(texts))
        parts = [
            self._encoded(self.network.encode_text, sentences.batch(rows))
            for rows in np.array_split(np.arange(len(texts)), -(-len(texts) // _BATCH))
        ]
        return _joined(parts)

    def encode_videos(self, videos: "Sequence[str | Path | np.ndarray]") -> "dict[str, Tensor]":
        """Return tensors (n, ...) by name, float32 on the CPU, row i for video i.

        videos: files, of which the frames are read that the model is tested on; for a model of
        features their rows instead, float32 (T, F), as `BigFile.read_video` gives them. Raises
        TvrError that names an unreadable file.
        """
        if not len(videos):
            raise TvrError("there is no video to encode", fix="Give at least one file.")
        return _joined([self._video(video) for video in videos])

    def score(
        self,
        texts: "Sequence[str] | dict[str, Tensor]",
        videos: "Sequence[str | Path | np.ndarray] | dict[str, Tensor]",
    ) -> "np.ndarray":
        """Return how well each text fits each video, float32 (n_texts, n_videos), higher is better.

        Either side may be encoded before. What a system takes from a whole gallery (the balance of
        two spaces) is taken from these texts and videos. The noise of a model that samples is keyed
        by texts and names of files, of encodings by the number of the row.
        """
        from pipeline.evaluation import retrieve

        text = texts if isinstance(texts, Mapping) else self.encode_text(texts)
        video = videos if isinstance(videos, Mapping) else self.encode_videos(videos)
        encoded = self._named(texts, videos, text, video)
        t2v, _ = retrieve.rankings(self.network, encoded)
        return t2v

    def _named(
        self, texts: object, videos: object, text: "dict[str, Tensor]", video: "dict[str, Tensor]"
    ) -> "Encoded":
        """Both sides, with names where they are known: the noise of a model that samples is keyed
        by them.
        """
        import numpy as np

        from models.parts.noise import keys
        from pipeline.evaluation.encode import text_keys
        from pipeline.evaluation.retrieve import Encoded

        rows = np.arange(len(next(iter(text.values()))))
        if isinstance(texts, Mapping):
            known = keys([f"row {n}" for n in rows])
        else:
            known = text_keys(self.info.text_encoder.sentences(list(texts)), rows)
        n_videos = len(next(iter(video.values())))
        names = [f"row {n}" for n in range(n_videos)]
        if not isinstance(videos, Mapping) and not isinstance(videos[0], np.ndarray):
            names = [Path(one).stem for one in videos]
        return Encoded(text, video, rows, known, keys(names))

    def _video(self, video: "str | Path | np.ndarray") -> "dict[str, Tensor]":
        import numpy as np
        import torch

        from pipeline.search.encode_file import encode_file, encode_rows

        reads_features = self.network.inputs.video == "features"
        if reads_features != isinstance(video, np.ndarray):
            wanted = "features of its frames, an array (T, F)" if reads_features else "a video file"
            raise TvrError(f"the model reads {wanted}, and got {type(video).__name__}")
        with torch.inference_mode():
            if reads_features:
                found = encode_rows(self.network, np.asarray(video, np.float32))
            else:
                path = Path(video).expanduser()
                if not path.is_file():
                    raise TvrError("there is no such file", where=path, fix="Check the path.")
                found = encode_file(self.network, path, self.info.recipe.train.frames)
        return {name: rows.float().cpu() for name, rows in found.items()}

    def _encoded(self, encode: object, batch: "dict[str, Tensor]") -> "dict[str, Tensor]":
        import torch

        device = next(self.network.parameters()).device
        with torch.inference_mode():
            shared = self.network.prepare()
            found = encode({name: rows.to(device) for name, rows in batch.items()}, shared)
        return {name: rows.float().cpu() for name, rows in found.items()}


class Index:
    """A collection that `tvrkit index` encoded, with its model.

    path: the folder that `index` wrote. checkpoint, root: where its checkpoint and its videos lie
    now, if they were moved. Raises TvrError if it is none, or made by another checkpoint.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        checkpoint: str | Path | None = None,
        root: str | Path | None = None,
    ):
        from pipeline.search import search
        from pipeline.search.opening import open_index
        from pipeline.stores.index.reader import IndexStore

        folder = Path(path).expanduser()
        self._store = IndexStore.open(folder, None if root is None else Path(root))
        given = None if checkpoint is None else Path(checkpoint)
        model, info = open_index(folder, self._store, given)
        self.model = Model(model, info)
        self._asker = search.of_index(model, info, self._store)

    def __len__(self) -> int:
        """How many videos there are."""
        return self._asker.collection.n_videos

    def search(
        self,
        query: str,
        *,
        top: int = 10,
        path: str = "",
        per_video: int = 0,
        min_score: float | None = None,
    ) -> "list[VideoAnswer]":
        """Return the best answers: rank (from 1), score, video_id, path, start and end in seconds.

        query: a sentence, or parts with signs as on the command line: '"a dog" + ./pool.jpg'. path:
        only videos whose path fits this glob. per_video: answers per video at most, 0: any number.
        Raises TvrError for a query without a word that the model knows.
        """
        from pipeline.search.question import parse_line
        from pipeline.search.search import Searcher

        searcher = Searcher(self._asker, top, per_video, min_score, path)
        answers, _asked = searcher.search(parse_line(query))
        return list(answers)


def evaluate(
    similarity: "np.ndarray",
    targets: Sequence[int],
    *,
    ties: str = "pessimistic",
    v2t: "np.ndarray | None" = None,
) -> dict:
    """Return the retrieval metrics of both directions: {"t2v": {R1, R5, R10, MdR, MnR, ...}, "v2t",
    "Rsum", ...}, R@K in percent.

    similarity (n_texts, n_videos), higher is better. targets: column of each text's own video.
    ties: pessimistic, optimistic, average or expanded. v2t (n_videos, n_texts): scores of the other
    direction, where they are not the transpose. Raises TvrError for NaN or shapes that do not fit.
    """
    import numpy as np

    from pipeline.evaluation import metrics

    scores, own = np.asarray(similarity), np.asarray(targets)
    _expect_fit(scores, own)
    if ties not in metrics.TIES:
        raise TvrError(f"ties {ties!r}", fix=f"Choose one of {', '.join(metrics.TIES)}.")
    metrics.check_finite(scores, "similarity")
    other = scores.T if v2t is None else np.asarray(v2t)
    return metrics.evaluate(scores, other, own.astype(np.int64), ties=ties).metrics


def _expect_fit(scores: "np.ndarray", targets: "np.ndarray") -> None:
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise TvrError(
            f"similarity has the shape {scores.shape}, targets {targets.shape}",
            fix="Give (n_texts, n_videos) and n_texts columns.",
        )
    if len(targets) and not (targets.min() >= 0 and targets.max() < scores.shape[1]):
        raise TvrError(
            f"targets go from {targets.min()} to {targets.max()}",
            fix=f"Columns of {scores.shape[1]:,} videos go from 0 to {scores.shape[1] - 1}.",
        )


def run(
    pipeline: str,
    *,
    set: Sequence[str] = (),  # noqa: A002  (the name of the option)
    work: str | Path = "data/work",
    until: str = "",
    only: str = "",
    config: str | Path | None = None,
    jobs: int = 0,
) -> dict[str, dict]:
    """Bring a pipeline up to date as `tvrkit run` does; return the manifest of each step by name.

    Finished work is kept. set: "step.option=value", by default those of the pipeline's
    last run. jobs: worker processes, 0: one per core; a
    script that starts them needs `if __name__ == "__main__":`. Raises TvrError.
    """
    from pipeline import config as configuration
    from pipeline.core import kept_options
    from pipeline.core.execute import Selection, run_pipeline
    from pipeline.core.plan import Pipeline
    from pipeline.core.todo import Settings

    loaded = configuration.load(None if config is None else Path(config))
    given = kept_options.overrides(Path(work) / pipeline, set)
    opened = Pipeline.open(loaded, pipeline, Path(work), given)
    kept_options.keep(Path(work) / pipeline, given)
    return run_pipeline(opened, Selection(until, only), Settings(jobs=jobs))


def command(*arguments: str | Path) -> None:
    """Run any command as typed after `tvrkit`, in this process: command("doctor").

    What it prints goes to stdout and stderr. Raises TvrError where the command would end with an
    error.
    """
    import click

    import cli

    try:
        cli.cli.main([str(part) for part in arguments], prog_name="tvrkit", standalone_mode=False)
    except click.ClickException as error:
        raise TvrError(error.format_message(), where=" ".join(map(str, arguments[:1]))) from error


def _joined(parts: "list[dict[str, Tensor]]") -> "dict[str, Tensor]":
    """Return encodings one below the other; shorter ones are padded with zeros in dimension 1."""
    import torch

    def padded(rows: "Tensor", length: int) -> "Tensor":
        if rows.dim() < 2 or rows.shape[1] == length:
            return rows
        wide = rows.new_zeros(len(rows), length, *rows.shape[2:])
        wide[:, : rows.shape[1]] = rows
        return wide

    joined = {}
    for name in parts[0]:
        own = [part[name] for part in parts]
        length = max(rows.shape[1] if rows.dim() > 1 else 0 for rows in own)
        joined[name] = torch.cat([padded(rows, length) for rows in own])
    return joined
