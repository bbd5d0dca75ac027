"""Reading torch archives of any origin without executing anything in them.

Everything that guards against damaged, oversized and hostile archives stands in this file alone:
the checks of the zip container, the allow-list of names, and the refusals.
"""

import argparse
import pickle
import re
import zipfile
from pathlib import Path

import torch

from pipeline.checkpoints import first_bytes
from pipeline.errors import DataError
from pipeline.text import numpy_values, pickle_cost

# torch does not compress its archives: what they hold cannot be larger than the file, plus this
_TORCH_EXPANDS = 1 << 20
_PICKLES_OF_OLDER = 5  # magic number, version, byte order, values, names of the storages


def read_archive(path: Path, published: bool = False) -> object:
    """Return what a torch archive holds, on the CPU. Nothing in it is executed.

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
        _check_older(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.partition("/")[2] for info in archive.infolist()]
            held = sum(info.file_size for info in archive.infolist())
            if held > path.stat().st_size + _TORCH_EXPANDS:
                raise DataError(
                    f"claims to hold {held:,} bytes in a file of {path.stat().st_size:,}",
                    where=path,
                    fix="Do not use this file; torch never writes such a file.",
                )
            if "constants.pkl" in names:
                raise DataError(
                    "a TorchScript program, not a checkpoint of weights",
                    where=path,
                    fix="Use the state dict of the model; programs are never run.",
                )
            for info in archive.infolist():
                if info.filename.endswith("data.pkl"):
                    pickle_cost.check(archive.read(info))
            damaged = archive.testzip()
    except (
        OSError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:
        raise _refused(path, error) from error
    if damaged:
        raise _refused(path, ValueError(f"the checksum of {damaged} is wrong"))


def _check_older(path: Path) -> None:
    """Files of torch before 1.6: four short pickles and one of the values, one behind the other."""
    try:
        pickle_cost.check_file(path, _PICKLES_OF_OLDER)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (ValueError, UnicodeDecodeError, EOFError) as error:
        raise _refused(path, LookupError()) from error


def _refused(path: Path, error: Exception) -> DataError:
    message = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"<(?:class|function) '?([\w.]+)", message
    ):
        return DataError(
            f"refused: it asks for {found[1]}, which is neither a tensor nor a plain value",
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
    """Return the allow-list of docs/specs/dual-encoding.md, section 2.9, with stand-ins of ours for
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
