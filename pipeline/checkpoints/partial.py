"""Checkpoints that hold only what was trained: frozen weights stay in the file they came from,
known by their digest.

A prompt-tuned model is a few megabytes beside a backbone of 600. Its best.pt names that file by its
place relative to the checkpoint and says what its weights must be (facts["backbone"]);
`read_model` puts both together, so whoever reads weights gets all of them. Another
backbone is refused. last.pt leaves frozen weights out too: a training that goes on has just loaded
them.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.base import Mismatch
from models.clip.sizes import PREFIX
from pipeline.checkpoints import clip_weights, safetensors, sparse, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.toolkit_file import MODEL, find_checkpoint, read_format
from pipeline.errors import DataError
from pipeline.recipes.freeze import unchanging_names
from pipeline.recipes.options import TrainOptions

KEY = "backbone"
_PARTS = {"file", "sha256", "names", "rounded"}
_WORTH = (
    0.5  # of all numbers: a checkpoint that would not become much smaller had better stand alone
)


def left_out(about: Mapping) -> frozenset[str]:
    """Return names of the weights that `about` (facts) says to lie in the backbone."""
    return frozenset(about.get(KEY, {}).get("names", ()))


def trained(weights: Mapping[str, Tensor], about: Mapping) -> dict[str, Tensor]:
    """Return a state dict without what lies in the backbone."""
    names = left_out(about)
    return {name: value for name, value in weights.items() if name not in names}


def load_trained(model: nn.Module, weights: Mapping[str, Tensor], about: Mapping) -> None:
    """Put what `trained` gave back into a model that has the rest."""
    own = model.state_dict()
    model.load_state_dict({name: own[name] for name in left_out(about)} | dict(weights))


def facts(
    model: nn.Module, options: TrainOptions, init: Path | None, folder: Path
) -> dict[str, object]:
    """Return {"backbone": what a checkpoint in `folder` can leave to the file of `init`}, {} if
    that is less than half of it.

    {"file", "sha256", "names", "rounded"}: the file's place relative to the folder, the digest of
    these weights, their names, and which of them were rounded through float16 when they were taken.
    """
    if init is None or not (names := unchanging_names(model, options)):
        return {}
    file = find_checkpoint(init)
    source, own = _given(file), model.state_dict()
    names = [n for n in names if n in source and source[n].shape == own[n].shape]
    same = {n for n in names if torch.equal(own[n].cpu(), source[n])}
    rounded = [n for n in names if n not in same and torch.equal(own[n].cpu(), _half(source[n]))]
    names = [n for n in names if n in same or n in rounded]
    if sum(own[n].numel() for n in names) < _WORTH * sum(value.numel() for value in own.values()):
        return {}
    place = Path(os.path.relpath(file.resolve(), Path(folder).resolve())).as_posix()
    return {KEY: {"file": place, "sha256": digest(own, names), "names": names, "rounded": rounded}}


def digest(weights: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Sha256 over names, types, shapes and bytes."""
    whole = hashlib.sha256()
    for name in sorted(names):
        value = weights[name].detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


def without(
    path: Path, about: Mapping, weights: Mapping[str, object]
) -> tuple[dict, Mapping[str, object]]:
    """Return (facts, weights) to write at `path`: without those of the backbone, if it is there and
    they are still its own.
    """
    backbone = about.get(KEY)
    if backbone is None:
        return dict(about), weights
    names = backbone["names"]
    place = os.path.normpath(
        Path(path).parent / backbone["file"]
    )  # the folder may not be there yet
    is_there = Path(place).is_file()
    is_whole = all(isinstance(weights.get(n), Tensor) for n in names)
    if is_there and is_whole and digest(weights, names) == backbone["sha256"]:
        return dict(about), trained(weights, about)
    return {
        key: value for key, value in about.items() if key != KEY
    }, weights  # pruned, or moved: whole again


def completed(path: Path, about: Mapping, weights: Mapping[str, object]) -> dict[str, object]:
    """Return all weights of a checkpoint read from `path`: its own, and those that it leaves to its
    backbone.

    The backbone is looked for where the checkpoint says, then beside it as backbone.pt (or its own
    suffix). DataError if it is not there or is another one.
    """
    backbone = about.get(KEY) if isinstance(about, Mapping) else None
    if backbone is None:
        return dict(weights)
    if not isinstance(backbone, Mapping) or backbone.keys() != _PARTS:
        raise DataError(
            "its backbone entry is malformed",
            where=path,
            fix="The file is damaged; train again.",
        )
    place = Path(os.path.normpath(Path(path).parent / backbone["file"]))
    beside = Path(path).with_name(f"backbone{place.suffix}")
    file = next((f for f in (place, beside) if f.is_file()), None)
    fix = f"Put the weights it was trained on at {place}, or beside it as {beside.name}."
    if file is None:
        raise DataError(
            f"holds only what was trained; the backbone, {len(backbone['names'])} frozen tensors,"
            " is not there",
            where=path,
            fix=fix,
        )
    source, rounded = _given(file), set(backbone["rounded"])
    taken = {
        n: _half(source[n]) if n in rounded else source[n] for n in backbone["names"] if n in source
    }
    found = digest(taken, taken) if len(taken) == len(backbone["names"]) else ""
    if found != backbone["sha256"]:
        differs = (
            f"is {found[:12]}"
            if found
            else f"is none: {len(taken)} of {len(backbone['names'])} tensors are there"
        )
        raise DataError(
            f"trained on another backbone: its digest is {backbone['sha256'][:12]}, that of {file}"
            f" {differs}",
            where=path,
            fix=fix,
        )
    return taken | dict(weights)


def read_model(path: Path) -> dict:
    """Return the content of a checkpoint of a model, with all its weights: unpacked and completed.

    Raises DataError if it is no such checkpoint, contradicts itself, or lacks its backbone.
    """
    value = read_format(path, MODEL)
    if isinstance(value.get("weights"), dict):
        try:
            weights = sparse.unpacked(value["weights"])
        except Mismatch as error:
            raise DataError(error.what, where=path, fix=error.fix) from error
        value["weights"] = completed(path, value.get("facts"), weights)
    return value


def _given(file: Path) -> dict[str, Tensor]:
    """Return the weights in a file by the names that models have for them: one of ours, or one of a
    CLIP.
    """
    if file.suffix == safetensors.SUFFIX:
        if safetensors.read_ours(file) is not None:
            return read_model(file)["weights"]
    elif not torchscript.is_program(file):
        value = read_archive(file)
        if isinstance(value, dict) and value.get("format") == MODEL:
            return read_model(file)["weights"]
    return {
        PREFIX + n: v.float() if v.is_floating_point() else v
        for n, v in clip_weights.read(file).items()
    }


def _half(value: Tensor) -> Tensor:
    return value.half().to(value.dtype)
