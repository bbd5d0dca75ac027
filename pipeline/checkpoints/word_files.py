"""Vocabulary and tags of a published checkpoint: files that lie beside it, found where its program
keeps them.

A published file holds weights and sizes, not words (docs/specs/dual-encoding.md, sections 2.9,
11.1). Its module in `models/<model>/published.py` says how its program calls the files of words:
`words_beside(name, value)`, {"vocab" | "bag" | "tags": relative paths}.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.text import tag_files, vocab
from pipeline.text.vocab import Vocabulary

_LEVELS = 8  # hybrid_space keeps its checkpoints seven folders below the one that holds its texts


@dataclass(frozen=True)
class Files:
    """What the user names; the rest is looked for."""

    vocab: Path | None = None
    bag: Path | None = None
    tags: Path | None = None


@dataclass(frozen=True)
class Words:
    """The words themselves. bag: None unless bags of words have a vocabulary of their own; tags:
    None if unknown.
    """

    vocabulary: Vocabulary | None
    bag: Vocabulary | None
    tags: list[str] | None
    files: Files


def read(
    checkpoint: Path, named: Files, known: Mapping[str, Sequence[str]], n_words: int, n_tags: int
) -> Words:
    """Return the words of a checkpoint with n_words entries in its vocabulary and n_tags concepts
    (0: it has none).

    Raises ConfigError naming the file that is missing, DataError for one that is unreadable.
    """
    sought = {"vocab": n_words, "bag": n_words, "tags": n_tags}
    found = Files(
        **{
            name: (
                getattr(named, name)
                or (_find(checkpoint, name, known.get(name, ())) if size else None)
            )
            for name, size in sought.items()
        }
    )
    if found.vocab is None and n_words:
        names = " or ".join(known.get("vocab", ())[:2]) or "the vocabulary of its training"
        raise ConfigError(
            f"{checkpoint.name} does not hold its vocabulary of {n_words:,} entries, and it is not"
            " beside it",
            where="--vocab",
            fix=f"Give {names}, which it was trained with.",
        )
    words = vocab.load(found.vocab) if found.vocab else None
    beside = (
        named.bag or (named.vocab if named.vocab and named.vocab.is_dir() else None) or found.bag
    )
    bag = vocab.load_bag(beside, words) if beside and words else None
    return Words(words, bag, _tags(found.tags), found)


def _tags(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    return tag_files.load(path).words if path.is_dir() else tag_files.read_vocabulary(path)


def _find(checkpoint: Path, name: str, candidates: Sequence[str]) -> Path | None:
    """Return the first candidate that exists, in the nearest folder above the checkpoint that has
    one.
    """
    for folder in checkpoint.resolve().parents[:_LEVELS]:
        for candidate in candidates:
            if (folder / candidate).is_file():
                log.info(
                    f"--{name} {folder / candidate} (found; name another one if this is not it)"
                )
                return folder / candidate
    return None
