"""CLIP weights from any file they are published in: OpenAI's programs, state dicts, open_clip's and
Hugging Face's.
"""

from pathlib import Path

from torch import Tensor

from models.base import Mismatch
from models.clip.published import import_weights
from models.clip.sizes import FILES
from models.clip.towers import sizes_of
from pipeline.checkpoints import finite, safetensors, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.core.files import file_digest
from pipeline.errors import DataError


def read(path: Path, backbone: str | None = None) -> dict[str, Tensor]:
    """Return a state dict under OpenAI's names, on the CPU, for
    `models.clip.towers.CLIP.from_state_dict`. Nothing is executed.

    backbone: "ViT-B/32", ...: the file must be byte for byte the one OpenAI publishes under this
    name; checked first.
    Raises DataError: missing, damaged, hostile, another file than the one asked for, not a CLIP.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            "there is no such weight file", where=path, fix=_where_to_find(path, backbone)
        )
    if backbone is not None:
        _check_digest(path, backbone)
    try:
        state = import_weights(_contents(path))
        sizes_of(state)  # whatever else the file is, say so here, where its name is known
    except Mismatch as error:
        raise DataError(error.what, where=path, fix=error.fix) from error
    finite.check(path, state)
    return state


def _contents(path: Path) -> dict:
    if path.suffix == ".safetensors":
        return safetensors.read(path)
    value = torchscript.read(path) if torchscript.is_program(path) else read_archive(path)
    if not isinstance(value, dict):
        raise DataError(
            f"holds a {type(value).__name__}, no weights", where=path, fix="Give a state dict."
        )
    return value


def _check_digest(path: Path, backbone: str) -> None:
    published, found = FILES[backbone], file_digest(path)
    if found != published.sha256:
        raise DataError(
            f"not OpenAI's {published.name}: sha256 {found[:12]}..., published"
            f" {published.sha256[:12]}...",
            where=path,
            fix=f"Download it again from {published.url}, or name it as weights of your own.",
        )


def _where_to_find(path: Path, backbone: str | None) -> str:
    named = [file for name, file in FILES.items() if backbone == name or path.name == file.name]
    return f"Download {named[0].url} to this place." if named else "Name a weight file of CLIP."
