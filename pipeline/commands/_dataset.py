"""The dataset that a command names: an entry of pipelines.yaml, a caption file, or a folder of
one's own videos.
"""

from pathlib import Path

from pipeline import log, registry
from pipeline.config import Config
from pipeline.datasets.base import Dataset, open_dataset
from pipeline.datasets.parts.listing import CAPTION_FILES, list_below
from pipeline.errors import ConfigError

_TABLES = (".csv", ".tsv", ".jsonl", ".json")


def find_dataset(
    loaded: Config, name: str, videos: Path | None = None, all_videos: bool = False
) -> Dataset:
    """Open a dataset. videos: a folder to look for its files in, instead of the one its options
    name.

    all_videos: also those without a file, where the options say to drop them. Readers that have no
    such options are left as they are. ConfigError with a did-you-mean if `name` is neither a
    dataset nor a path.
    """
    spec = _spec(loaded, name, videos)
    fields = registry.find("dataset", spec["type"]).Dataset.Options.model_fields
    if videos is not None and "videos" in fields and fields["videos"].annotation is Path:
        spec["videos"] = str(videos.absolute())
    if all_videos and "missing" in fields:
        spec["missing"] = "report"
    return open_dataset(spec)


def is_dataset(loaded: Config, name: str) -> bool:
    """Return whether a name that a command was given means an entry of pipelines.yaml, not a path.

    An entry goes before a folder of that name in the working folder, unless only the folder is
    there: an entry without files is of no use to anyone. Where both could be meant, it is said
    which one is read and how to name the other.
    """
    if name not in loaded.datasets:
        return False
    path = Path(name)
    if not path.exists():
        return True
    root = Path(str(loaded.dataset(name).get("root", "")))
    if root.exists() and root.samefile(path):
        return True
    if root.exists():
        log.once(
            f"{name}: read as the data set of that name, whose files are in {root};"
            f" the folder here is ./{name}"
        )
        return True
    log.once(
        f"{name}: read as the folder ./{name}, because the data set of that name has no"
        f" files ({root} is not there)"
    )
    return False


def _spec(loaded: Config, name: str, videos: Path | None) -> dict:
    if is_dataset(loaded, name):
        return loaded.dataset(name)
    if Path(name).exists():
        return path_spec(Path(name), videos)
    hint = registry.suggest(name, sorted(loaded.datasets))
    raise ConfigError(
        f"{name!r} is neither a dataset nor a path", fix=f"{hint} See: python cli.py list datasets"
    )


def path_spec(path: Path, videos: Path | None = None) -> dict:
    """Return the dataset at a path: a folder of one's own videos, a table of captions (of `videos`,
    of the videos beside it where a folder's captions are called so, else alone), or the Dual
    Encoding layout.
    """
    if path.is_dir() and not (path / "TextData").is_dir():
        return {"type": "folder", "root": str(path)}
    if path.suffix.lower() in _TABLES:
        if videos is None and path.name in CAPTION_FILES and list_below(path.parent).videos:
            return {"type": "folder", "root": str(path.parent), "captions": path.name}
        captions = {"type": "folder", "captions": str(path.absolute())}
        return captions | (
            {"root": str(videos)} if videos else {"root": str(path.parent), "captions_only": True}
        )
    return {"type": "caption_files", "root": str(path)}


def short_name(dataset: str) -> str:
    """Return a folder name for what a command writes about a dataset."""
    return Path(dataset).name or "dataset"
