"""What lies below a folder: its files, and a counted account of everything that is passed over.

Every command that reads a folder of videos lists it here, so that nothing is dropped, taken twice
or missed without a word. Links to folders are followed, each real folder once; results that this
toolkit wrote below the folder never become its input.
"""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline import log
from pipeline.core.state import STATE
from pipeline.datasets.parts.video_marks import is_video_name, needs_a_look, starts_like_a_video
from pipeline.errors import DataError

CAPTION_FILES = (
    "captions.csv captions.tsv captions.jsonl captions.json captions.txt metadata.csv"
    " metadata.jsonl annotations.csv annotations.tsv annotations.jsonl annotations.json"
    " AllVideoDescriptions.txt".split()
)
_EXAMPLES = 3
_SYSTEM = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information"})
_SAID = {  # how each reason is said of one and of several
    "side": ("side file of a Mac (._*)", "side files of a Mac (._*)"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "cycle": (
        "link to a folder above it (a cycle, not followed)",
        "links to folders above them (cycles, not followed)",
    ),
    "again": (
        "link to a folder that is read under another name",
        "links to folders that are read under other names",
    ),
    "nowhere": ("link that leads nowhere", "links that lead nowhere"),
    "special": ("pipe, socket or device", "pipes, sockets and devices"),
    "output": (
        "folder with results of this toolkit (it holds _state)",
        "folders with results of this toolkit (they hold _state)",
    ),
    "other": ("file that is no video by its name", "files that are no videos by their names"),
    "alike": (
        "pair of names that differ only in case or Unicode form (both are read)",
        "pairs of names that differ only in case or Unicode form (both are read)",
    ),
}


@dataclass
class FolderListing:
    """The regular files below a folder in sorted order, and what was passed over, by reason.

    passed: {reason: paths below the folder}, reasons as in `account`.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def videos(self) -> list[Path]:
        """The files that are videos: by their suffix, or, without one, by their first bytes."""
        return [
            path
            for path in self.files
            if is_video_name(path.name) or (needs_a_look(path.name) and starts_like_a_video(path))
        ]

    @property
    def others(self) -> list[Path]:
        """The files that are no videos."""
        videos = set(self.videos)
        return [path for path in self.files if path not in videos]

    def account(self, with_others: bool = True) -> str:
        """Return one line with every reason that is not zero, counted, with examples; "" if there
        is none.

        with_others: also files of other suffixes (readers that know files by whole names use them).
        """
        found = self.passed | {"alike": _alike(self.videos)}
        if with_others:
            found |= {
                "other": [self._below(path) for path in self.others if not self._is_known(path)]
            }
        parts = [self._said(reason, found[reason]) for reason in _SAID if found.get(reason)]
        return "; ".join(parts)

    def tell(self, with_others: bool = True) -> None:
        """Say the account once per command and folder."""
        if account := self.account(with_others):
            log.once(f"{log.plain(str(self.folder))}: passed over: {account}")

    def expect_videos(self) -> None:
        """Raise DataError if not a single video was found; it lists what is there instead."""
        if self.videos:
            return
        there = (
            f": {len(self.files):,} files ({_suffixes(map(str, self.files))})" if self.files else ""
        )
        account = self.account(with_others=False)
        raise DataError(
            f"there is no video in it{there or ': it is empty'}"
            + (f"; passed over: {account}" if account else ""),
            where=self.folder,
            fix=(
                "A video has a suffix like .mp4, .mkv, .webm, .avi or .mov, or no suffix and the"
                " first bytes of a video. Is the disk mounted, and is this the right folder?"
                " Nothing was changed."
            ),
        )

    def _is_known(self, path: Path) -> bool:
        """Return whether a file that is not a video holds captions: in the folder, or beside its
        video.
        """
        if path.parent == self.folder and path.name in CAPTION_FILES:
            return True
        return path.suffix == ".txt" and str(path)[:-4] in self._stems

    @cached_property
    def _stems(self) -> set[str]:
        return {str(path)[: -len(path.suffix) or None] for path in self.videos}

    def _below(self, path: Path) -> str:
        return str(path)[len(str(self.folder / "x")) - 1 :]

    def _said(self, reason: str, names: list[str]) -> str:
        examples = ", ".join(map(log.plain, names[:_EXAMPLES]))
        if reason == "other":
            examples = f"{_suffixes(names)}: {examples}"
        more = ", ..." * (len(names) > _EXAMPLES)
        return f"{len(names):,} {_SAID[reason][len(names) > 1]} ({examples}{more})"


def _suffixes(names: Iterable[str]) -> str:
    """Return the suffixes of files with their counts, most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    return ", ".join(f"{log.plain(suffix)} {n:,}" for suffix, n in counts.most_common(8))


def list_below(folder: Path) -> FolderListing:
    """List a folder; a missing one is empty.

    Raises DataError if the folder, or one below it, cannot be listed: what cannot be listed is not
    "nothing".
    """
    if not folder.is_dir():
        return FolderListing(folder)
    return _Walk(folder).run()


class _Walk:
    def __init__(self, folder: Path):
        self._made = FolderListing(folder)
        self._start = len(str(folder / "x")) - 1  # of the part of a path below the folder
        self._seen: set[tuple[int, int]] = set()
        self._links: list[str] = []  # to folders, followed after every real folder was read
        self._locked: list[str] = []

    def run(self) -> FolderListing:
        self._descend(str(self._made.folder))
        while self._links:
            links, self._links = self._links, []
            for link in links:
                self._follow(link)
        if self._locked:
            raise DataError(
                f"{len(self._locked):,} {'folder' if len(self._locked) == 1 else 'folders'} below"
                f" it cannot be listed: {'; '.join(self._locked[:_EXAMPLES])}",
                where=self._made.folder,
                fix=(
                    "Give yourself permission to list them (chmod u+rx), mount the disk again, or"
                    " move them elsewhere. Nothing was changed."
                ),
            )
        return self._made

    def _descend(self, top: str) -> None:
        pending = [top]
        while pending:
            path = pending.pop()
            try:
                mark = _mark(path)
                if mark in self._seen:
                    continue
                with os.scandir(path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._lock(path, error)
                continue
            self._seen.add(mark)
            is_top = path == str(self._made.folder)
            if not is_top and any(e.name == STATE and e.is_dir() for e in found):
                self._pass("output", path)
                continue
            pending += reversed([folder for e in found if (folder := self._sort(e))])

    def _sort(self, entry: os.DirEntry) -> str | None:
        """Put an entry where it belongs; its path if it is a folder to descend into."""
        if reason := _reason_of_name(entry.name):
            if reason != "state":
                self._pass(reason, entry.path)
            return None
        if entry.is_dir(follow_symlinks=False):
            return entry.path
        if entry.is_file(follow_symlinks=False):
            self._made.files.append(Path(entry.path))
        elif entry.is_symlink():
            self._sort_link(entry.path)
        else:
            self._pass("special", entry.path)
        return None

    def _sort_link(self, path: str) -> None:
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            if is_video_name(path):  # the step that reads it says what is wrong with it
                self._made.files.append(Path(path))
            else:
                self._pass("nowhere", path)
            return
        if stat.S_ISDIR(mode):
            self._links.append(path)
        elif stat.S_ISREG(mode):
            self._made.files.append(Path(path))
        else:
            self._pass("special", path)

    def _follow(self, link: str) -> None:
        real, lies_in = Path(link).resolve(), Path(link).parent.resolve()
        if real in (lies_in, *lies_in.parents):
            self._pass("cycle", link)
            return
        try:
            seen = _mark(link) in self._seen
        except OSError as error:
            self._lock(link, error)
            return
        if seen:
            self._pass("again", link)
        else:
            self._descend(link)

    def _pass(self, reason: str, path: str) -> None:
        self._made.passed.setdefault(reason, []).append(path[self._start :])

    def _lock(self, path: str, error: OSError) -> None:
        name = path[self._start :] or "the folder itself"
        self._locked.append(f"{log.plain(name)} ({error.strerror})")


def _mark(path: str) -> tuple[int, int]:
    facts = Path(path).stat()
    return facts.st_dev, facts.st_ino


def _reason_of_name(name: str) -> str:
    if name.startswith("._"):
        return "side"
    if name.startswith(".") or name in _SYSTEM:
        return "hidden"
    return "state" if name == STATE else ""


def _alike(paths: Iterable[Path]) -> list[str]:
    """Pairs of paths that a file system without case, or with one Unicode form, takes for one."""
    first: dict[str, Path] = {}
    pairs = []
    for path in paths:
        text = str(path)
        key = (text if text.isascii() else unicodedata.normalize("NFC", text)).casefold()
        other = first.setdefault(key, path)
        if other is not path:
            pairs.append(f"{other.name} and {path.name}")
    return pairs
