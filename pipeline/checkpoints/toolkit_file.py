"""The files this toolkit writes: their formats, their version, and where they lie in a folder."""

from pathlib import Path

from models.clip.sizes import FILES
from pipeline.checkpoints import safetensors
from pipeline.checkpoints.archive import read_archive
from pipeline.errors import DataError

MODEL, TRAINING = "tvrkit/model", "tvrkit/training"
VERSION = 1


def read_format(path: Path, expected: str) -> dict:
    """Return a checkpoint this toolkit wrote, checked to be of the format `expected` and of a
    version we know.
    """
    is_safe = path.suffix == safetensors.SUFFIX
    value = safetensors.read_ours(path) if is_safe else read_archive(path)
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
    return value


def find_checkpoint(path: Path) -> Path:
    """Return the weight file that `path` means: itself, or checkpoints/best.pt below it. DataError
    if there is none.
    """
    path = Path(path)
    ours = (path / "checkpoints" / "best.pt", path / "best.pt")
    hugging_face = (path / "model.safetensors", path / "pytorch_model.bin")
    for candidate in (path, *ours, *hugging_face):
        if candidate.is_file():
            return candidate
    for name, published in FILES.items():
        if path.name == published.name:
            raise DataError(
                "the weights are not here",
                where=path,
                fix=f"Bring them: python cli.py fetch weights {name} --out {path.parent}",
            )
    raise DataError(
        "there is no checkpoint here",
        where=path,
        fix=(
            "Give best.pt, or the folder of a train step, or that of a Hugging Face CLIP, which"
            " holds model.safetensors."
        ),
    )
