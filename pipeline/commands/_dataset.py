"""The dataset that a command names: an entry of pipelines.yaml, a caption file, or a folder of
one's own videos.
"""

from pathlib import Path

from pipeline import registry
from pipeline.config import Config
from pipeline.datasets.base import Dataset, open_dataset
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


def _spec(loaded: Config, name: str, videos: Path | None) -> dict:
    if name in loaded.datasets:
        return loaded.dataset(name)
    if Path(name).exists():
        return path_spec(Path(name), videos)
    hint = registry.suggest(name, sorted(loaded.datasets))
    raise ConfigError(
        f"{name!r} is neither a dataset nor a path", fix=f"{hint} See: python cli.py list datasets"
    )


def path_spec(path: Path, videos: Path | None = None) -> dict:
    """The dataset at a path: a folder of one's own videos, a table of captions (of `videos`, else
    alone), or the Dual Encoding layout.
    """
    if path.is_dir() and not (path / "TextData").is_dir():
        return {"type": "folder", "root": str(path)}
    if path.suffix.lower() in _TABLES:
        captions = {"type": "folder", "captions": str(path.absolute())}
        return captions | (
            {"root": str(videos)} if videos else {"root": str(path.parent), "captions_only": True}
        )
    return {"type": "caption_files", "root": str(path)}


def short_name(dataset: str) -> str:
    """A folder name for what a command writes about a dataset."""
    return Path(dataset).name or "dataset"
