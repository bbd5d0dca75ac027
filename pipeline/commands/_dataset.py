"""The dataset that a command names: an entry of pipelines.yaml, a caption file, or a folder of one's own videos."""

from pathlib import Path

from pipeline import registry
from pipeline.config import Config
from pipeline.datasets.base import Dataset, open_dataset
from pipeline.errors import ConfigError


def find_dataset(loaded: Config, name: str, videos: Path | None = None, all_videos: bool = False) -> Dataset:
    """Open a dataset. videos: a folder to look for its files in, instead of the one its options name.

    all_videos: also those without a file, where the options say to drop them. Readers that have no such options are
    left as they are. ConfigError with a did-you-mean if `name` is neither a dataset nor a path.
    """
    spec = _spec(loaded, name)
    fields = registry.find("dataset", spec["type"]).Dataset.Options.model_fields
    if videos is not None and "videos" in fields and fields["videos"].annotation is Path:
        spec["videos"] = str(videos.absolute())
    if all_videos and "missing" in fields:
        spec["missing"] = "report"
    return open_dataset(spec)


def _spec(loaded: Config, name: str) -> dict:
    if name in loaded.datasets:
        return loaded.dataset(name)
    if Path(name).is_dir() and not (Path(name) / "TextData").is_dir():
        return {"type": "folder", "root": name}
    if Path(name).exists():
        return {"type": "caption_files", "root": name}
    hint = registry.suggest(name, sorted(loaded.datasets))
    raise ConfigError(f"{name!r} is neither a dataset nor a path", fix=f"{hint} See: python cli.py list datasets")


def short_name(dataset: str) -> str:
    """A folder name for what a command writes about a dataset."""
    return Path(dataset).name or "dataset"
