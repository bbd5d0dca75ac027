"""The indexes that are served: opened once, asked one after another, opened again when extended."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import log
from pipeline.errors import ConfigError, TvrError
from pipeline.search.answers import Answers
from pipeline.search.opening import open_index
from pipeline.search.question import Part
from pipeline.search.search import Searcher, of_index
from pipeline.stores.index.reader import INDEX, STORE, IndexStore, Place


@dataclass(frozen=True)
class Filters:
    """top: answers. path: a glob that the path or id of a video fits, "": any."""

    top: int = 20
    min_score: float | None = None
    path: str = ""
    per_video: int = 0


@dataclass
class _Opened:
    """An index, its model, and the state of its file when it was opened."""

    folder: Path
    root: Path | None
    checkpoint: Path | None
    mark: tuple[int, int, int]
    store: IndexStore
    searcher: Searcher
    lock: threading.Lock = field(default_factory=threading.Lock)


class Shelf:
    """Indexes by name. Any number of threads may ask; a model answers one query after another."""

    def __init__(
        self, folders: list[Path], root: Path | None = None, checkpoint: Path | None = None
    ):
        """Open every index.

        root: where the videos lie now. checkpoint: of all of them. Raises DataError as
        `IndexStore.open` and `open_index`, ConfigError for two indexes of one name.
        """
        self._opened: dict[str, _Opened] = {}
        for folder in folders:
            name = folder.resolve().name
            if name in self._opened:
                raise ConfigError(
                    f"two indexes are called {name}",
                    where="serve",
                    fix="Rename one of the folders: an address names an index by its folder.",
                )
            self._opened[name] = _open(folder, root, checkpoint)

    @property
    def names(self) -> list[str]:
        """The names of the indexes, in the order they were given."""
        return list(self._opened)

    def store(self, name: str) -> IndexStore:
        """Return the index of this name, as it is on disk now. Raises KeyError if there is none."""
        return self._fresh(name).store

    def describe(self, name: str) -> str:
        """Return what is searched, in words."""
        return self._fresh(name).searcher.collection.described

    def search(self, name: str, parts: list[Part], filters: Filters) -> tuple[Answers, list[str]]:
        """Answers to a question, and the words of it that the model does not know.

        Raises KeyError for an unknown index; ConfigError and DataError as `Asker.ask`.
        """
        opened = self._fresh(name)
        with opened.lock:
            searcher = Searcher(
                opened.searcher.asker,
                filters.top,
                filters.per_video,
                filters.min_score,
                filters.path,
            )
            answers, asked = searcher.search(parts)
        return answers, asked.unknown

    def places(self, name: str, video_id: str) -> list[Place]:
        """Return what the index holds of a video: itself and its windows; [] if it does not know
        it.
        """
        store = self._fresh(name).store
        number = store.number_of(video_id)
        return [] if number is None else [store.place(row) for row in store.rows_of(number)]

    def file(self, name: str, video_id: str) -> Path | None:
        """Return the file of a video of the index, or None if it is not in it, or has gone."""
        places = self.places(name, video_id)
        path = Path(places[0].path) if places and places[0].path else None
        return path if path is not None and path.is_file() else None

    def _fresh(self, name: str) -> _Opened:
        opened = self._opened[name]
        mark = _mark(opened.folder)
        if mark is None or mark == opened.mark:
            return opened  # an index that is being replaced goes on as it was
        with opened.lock:
            if self._opened[name] is opened:
                try:
                    self._opened[name] = _open(opened.folder, opened.root, opened.checkpoint)
                    log.info(f"{name}: opened again, {self._opened[name].store.n_videos:,} videos")
                except TvrError as error:
                    log.warning(f"{name}: keeps serving the former content: {error.what}")
                    opened.mark = mark
            return self._opened[name]


def _open(folder: Path, root: Path | None, checkpoint: Path | None) -> _Opened:
    mark = _mark(folder) or (0, 0, 0)
    store = IndexStore.open(folder, root)
    model, info = open_index(folder, store, checkpoint)
    return _Opened(
        folder=folder,
        root=root,
        checkpoint=checkpoint,
        mark=mark,
        store=store,
        searcher=Searcher(of_index(model, info, store)),
    )


def _mark(folder: Path) -> tuple[int, int, int] | None:
    try:
        found = (folder / STORE / INDEX).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
