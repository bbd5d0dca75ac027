"""Reading and writing weight files: atomically, with equal bytes for equal content, and without
executing anything.

A checkpoint is a torch archive of tensors and plain containers. `best.pt` (format `tvrkit/model`)
holds weights, the resolved recipe and what else a model is built from; `last.pt` (format
`tvrkit/training`) holds all of a training run.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from models.base import Assets, Inputs, Mismatch, RetrievalModel
from pipeline import __version__, registry
from pipeline.checkpoints import finite, first_bytes, partial, sparse
from pipeline.core.files import atomic_path
from pipeline.errors import ConfigError, DataError, refusal
from pipeline.recipes.recipe import Recipe, parse
from pipeline.text import numpy_values, vocab
from pipeline.text.encoder import TextEncoder
from pipeline.text.vocab import Vocabulary

MODEL, TRAINING = "tvrkit/model", "tvrkit/training"
VERSION = 1
_TORCH_EXPANDS = (
    1 << 20
)  # archives of torch are not compressed: what they hold cannot be larger than the file, plus this


def write(path: Path, value: object) -> None:
    """Save tensors and plain containers; the old file stays until the new one is whole.
    SystemRefused: disk full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        remembering = _Remembering(file)
        try:
            torch.save(_canonical(value), remembering)
        except (RuntimeError, OSError) as error:  # torch turns a failed write into a RuntimeError
            cause = remembering.error or error
            raise (refusal(cause, path) if isinstance(cause, OSError) else None) or cause from error


class _Remembering:
    """A file for torch.save that keeps the OSError torch hides; it has no name for torch to write
    down.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self.error = file, None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _canonical(value: object) -> object:
    """The same content in fresh containers: pickle marks objects it met before, so sharing would
    show in the bytes.
    """
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        is_part = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        return plain.clone() if is_part else plain  # a part would take the whole storage along
    if isinstance(value, Mapping):
        return {_canonical(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(v) for v in value)
    if isinstance(
        value, argparse.Namespace
    ):  # only in exported files: hybrid_space keeps its options in one
        return argparse.Namespace(**_canonical(vars(value)))
    if isinstance(value, str):
        return sys.intern(str(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}")


def read(path: Path, published: bool = False) -> object:
    """What a torch archive holds, on the CPU. Nothing in it is executed.

    published: also admit what the published files contain, numpy arrays of floats (they become
    tensors), numpy's single numbers (Python's own) and argparse.Namespace (a dict); nothing else
    ever is admitted.

    Raises DataError: missing, cut short, damaged, too large inside, of another kind, hostile (names
    the class).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            "there is no such checkpoint",
            where=path,
            fix="Name the file that training wrote: .../best.pt.",
        )
    first_bytes.check(path)
    _check_archive(path)
    allowed = _published_names() if published else []
    try:
        with torch.serialization.safe_globals(allowed):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # a damaged archive makes the reader raise almost anything; all of it means this
        raise _refused(path, error) from error
    return _plain(value, path) if published else value


def _check_archive(path: Path) -> None:
    """torch notices neither a flipped bit in a tensor nor an archive that expands to more than the
    machine holds.
    """
    if not zipfile.is_zipfile(path):
        # the older format of torch is one pickle; reading it with weights_only says the rest
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.partition("/")[2] for info in archive.infolist()]
            held = sum(info.file_size for info in archive.infolist())
            if held > path.stat().st_size + _TORCH_EXPANDS:
                raise DataError(
                    f"claims to hold {held:,} bytes in a file of {path.stat().st_size:,}",
                    where=path,
                    fix="Do not use this file; torch never writes such a one.",
                )
            if "constants.pkl" in names:
                raise DataError(
                    "a TorchScript program, not a checkpoint of weights",
                    where=path,
                    fix="Use the state dict of the model; programs are never run.",
                )
            damaged = archive.testzip()
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:
        raise _refused(path, error) from error
    if damaged:
        raise _refused(path, ValueError(f"the checksum of {damaged} is wrong"))


def _refused(path: Path, error: Exception) -> DataError:
    message = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"<(?:class|function) '?([\w.]+)", message
    ):
        return DataError(
            f"refused: it asks for {found[1]}, which is no tensor or plain value",
            where=path,
            fix=(
                "Nothing in it was executed. Use a checkpoint from a source you trust, saved as a"
                " state dict."
            ),
        )
    message = (
        message.partition("WeightsUnpickler error: ")[2] or message
    )  # torch puts advice around its finding
    first = message.strip().splitlines()[0] if message.strip() else type(error).__name__
    first = "its bytes are no archive of torch" if isinstance(error, LookupError) else first
    return DataError(
        f"not a readable checkpoint: {first[:160]}",
        where=path,
        fix="The file is cut short, damaged or of another kind; copy or train it again.",
    )


def _published_names() -> list:
    """The allow-list of docs/specs/dual-encoding.md, section 2.9, with stand-ins of ours for
    everything of numpy.
    """
    return [
        *((found, ".".join(name)) for name, found in numpy_values.stand_ins().items()),
        argparse.Namespace,
    ]


def _plain(value: object, path: Path) -> object:
    """The same values without numpy's and argparse's own classes. Each container is walked once: a
    hostile file of a few bytes can nest 2 to the power of 60 of them.
    """
    return _walked(value, path, {})


def _walked(value: object, path: Path, met: dict[int, object]) -> object:
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in met:
            met[id(value)] = _parts(value, path, met)
        return met[id(value)]
    if isinstance(value, numpy_values.Array):
        if value.values.dtype.kind != "f":
            what = f"holds a numpy array of {value.values.dtype}"
            raise DataError(
                what,
                where=path,
                fix="Only float arrays are read; the published programs write no others.",
            )
        return torch.from_numpy(value.values)
    if isinstance(value, argparse.Namespace):
        return _walked(vars(value), path, met)
    return value


def _parts(value: dict | list | tuple, path: Path, met: dict[int, object]) -> object:
    if isinstance(value, dict):
        return {k: _walked(v, path, met) for k, v in value.items()}
    return type(value)(_walked(v, path, met) for v in value)


def read_format(path: Path, expected: str) -> dict:
    """A checkpoint this toolkit wrote, checked to be of the format `expected` and of a version we
    know.
    """
    value = read(path)
    kind = value.get("format") if isinstance(value, dict) else None
    if kind != expected:
        what = f"a {kind} file" if isinstance(kind, str) else "weights of another program"
        fix = {
            MODEL: "Give checkpoints/best.pt, or use import-checkpoint for published weights."
        }.get(expected, "")
        raise DataError(
            f"{what}, not {expected}",
            where=path,
            fix=fix or "Give the file that this command wrote.",
        )
    if value.get("version") != VERSION:
        raise DataError(
            f"{expected} version {value.get('version')}, this program reads {VERSION}",
            where=path,
            fix="Use the version of the toolkit that wrote it.",
        )
    if expected == MODEL and isinstance(value.get("weights"), dict):
        try:
            weights = sparse.unpacked(value["weights"])
        except Mismatch as error:
            raise DataError(error.what, where=path, fix=error.fix) from error
        value["weights"] = partial.completed(path, value.get("facts"), weights)
    return value


@dataclass(frozen=True)
class ModelInfo:
    """What best.pt says besides the weights.

    facts: what the model was built from and trained on: vocabulary {word: id}, bag (the same of
    bags of words, where they have their own), tags (words in order), feature_dim, word_dim, pruned,
    digests of the inputs. training: epoch, step, scores and which weights (raw or ema) these are.
    inputs: what the model reads; None until it is built.
    """

    recipe: Recipe
    facts: dict
    training: dict
    inputs: Inputs | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of its captions, that of its bags behind it; None for a model that needs
        none.
        """
        words, bag = (_vocabulary(self.facts, name) for name in ("vocabulary", "bag"))
        return vocab.joined(words, bag) if words else None

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns captions or queries into tokens, exactly as in training."""
        inputs = self.inputs or Inputs("words", "features")
        clean = self.recipe.train.clean_captions
        return TextEncoder(inputs.text, inputs.tokens, self.vocabulary, clean)


def find(path: Path) -> Path:
    """The weight file that `path` means: itself, or checkpoints/best.pt below it. DataError if
    there is none.
    """
    path = Path(path)
    ours = (path / "checkpoints" / "best.pt", path / "best.pt")
    hugging_face = (path / "model.safetensors", path / "pytorch_model.bin")
    for candidate in (path, *ours, *hugging_face):
        if candidate.is_file():
            return candidate
    raise DataError(
        "there is no checkpoint here",
        where=path,
        fix=(
            "Give best.pt, or the folder of a train step, or that of a Hugging Face CLIP, which"
            " holds model.safetensors."
        ),
    )


def load_model(path: Path) -> tuple[RetrievalModel, ModelInfo]:
    """The model of a best.pt (or of the folder of a train step), on the CPU, in eval mode. Needs no
    other file.

    Raises DataError for what is no such file, or holds weights that do not fit its own recipe.
    """
    path = find(path)
    value = read_format(path, MODEL)
    try:
        finite.check(path, value["weights"])
        parsed = parse(value["recipe"])
        info = ModelInfo(parsed, value["facts"], value["training"])
        model = build_model(parsed, info.facts, init=value["weights"])
        info = replace(info, inputs=model.inputs)
    except Mismatch as error:
        raise DataError(error.what, where=path, fix=error.fix) from error
    except (ConfigError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"its recipe cannot be used here: {error}",
            where=path,
            fix="Use the version of the toolkit that wrote it, or train again.",
        ) from error
    return model.eval(), info


def write_model(path: Path, info: ModelInfo, weights: Mapping[str, Tensor]) -> None:
    """Save a checkpoint that `load_model` reads. Of a pruned model (facts["pruned"]) only what is
    not zero is stored.

    What facts["backbone"] says to lie in another file is left out (`partial`).
    """
    facts, weights = partial.without(path, info.facts, weights)
    weights = sparse.packed(weights) if facts.get("pruned") else weights
    head = {"format": MODEL, "version": VERSION, "toolkit": __version__}
    body = {
        "recipe": info.recipe.resolved(),
        "facts": facts,
        "training": info.training,
        "weights": weights,
    }
    write(path, head | body)


def build_model(
    recipe: Recipe,
    facts: Mapping,
    *,
    init: Mapping | None = None,
    vectors: np.ndarray | None = None,
    clip: Mapping | None = None,
    is_start: bool = False,
) -> RetrievalModel:
    """A model from its recipe and the facts of its data.

    init: a state dict of it (is_start: or of its stage before); clip: one of a CLIP, for its
    backbone; vectors:
    (n_words, dim) float32.

    Raises models.base.Mismatch if they do not fit each other.
    """
    words, bag, dim = (
        _vocabulary(facts, "vocabulary"),
        _vocabulary(facts, "bag"),
        facts.get("word_dim"),
    )
    n_words = len(words) if words else 0
    if vectors is None and dim:
        vectors = np.zeros(
            (n_words, dim), np.float32
        )  # only its shape matters: `init` holds the values
    assets = Assets(
        n_words=n_words,
        bag_columns=vocab.bag_columns(words, bag) if words and bag else None,
        n_tags=len(facts.get("tags", ())),
        feature_dim=facts.get("feature_dim", 0),
        word_vectors=vectors,
        init=init,
        clip=clip,
        is_start=is_start,
    )
    return registry.find("model", recipe.model).build(recipe.options, assets)


def _vocabulary(facts: Mapping, name: str) -> Vocabulary | None:
    return Vocabulary(facts[name]) if facts.get(name) else None
