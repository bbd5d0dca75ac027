"""Tag files of both published forms: written byte for byte, read without evaluating anything, made
into label vectors.

Dual Encoding++: `tag_vocab.json` {tag: index} and `video_tag.txt`, "video<TAB>{'tag': count, ...}"
per line.
hybrid_space: `video_label_th_1.txt`, "video<TAB>tag:count tag:count " per line, and a folder of the
same name with `all_words.txt`, `tag_vocab_512.json` (a list) and `tag_vocab_512.txt`. Formats:
docs/specs/dual-encoding.md, sections 9.3, 11.2.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.text import assets
from pipeline.text.tags import TagCounts
from pipeline.text.vocab import most_frequent

TAG_VOCAB, VIDEO_TAGS = "tag_vocab.json", "video_tag.txt"
Annotation = dict[str, dict[str, int]]  # video id -> {tag: count}, by falling count
_ENTRY = re.compile(r"""\s*u?(?:'([^'\\]*)'|"([^"\\]*)")\s*:\s*(\d{1,9})\s*(,|$)""")
_FIX = "Run the tags step again, or take the file from whoever published it once more."


def annotate(
    counts: TagCounts, size: int = 512, vocab_min_count: int = 5, min_count: int = 2
) -> tuple[list[str], Annotation]:
    """Return the tag vocabulary and the tags of every video, as Dual Encoding++ makes them.

    Vocabulary: up to `size` tags with at least `vocab_min_count` in all captions. A video keeps
    tags of the vocabulary that its own captions have at least `min_count` times, possibly none.
    """
    words = most_frequent(counts.total, vocab_min_count, size)
    listed = set(words)
    videos = {}
    for video_id, count in counts.videos.items():
        videos[video_id] = {
            tag: count[tag] for tag in most_frequent(count, min_count, len(count)) if tag in listed
        }
    return words, videos


def files(words: list[str], videos: Annotation) -> dict[str, str]:
    """Return {file name: its text} in the form of Dual Encoding++."""
    return {
        TAG_VOCAB: json.dumps({tag: i for i, tag in enumerate(words)}, indent=2),
        VIDEO_TAGS: "".join(f"{video_id}\t{tags}\n" for video_id, tags in videos.items()),
    }


def annotate_hybrid(
    counts: TagCounts, size: int = 512, min_count: int = 2
) -> tuple[list[str], Annotation]:
    """Return the tags of every video and the tag vocabulary, as hybrid_space makes them: all tags
    ranked by their total, most frequent first; the vocabulary is the first `size` of them and has
    no smallest count of its own.

    A video keeps what its captions have at least `min_count` times; a video whose id starts with
    tgif has one caption and keeps everything, as published.
    """
    videos = {}
    for video_id, count in counts.videos.items():
        enough = 1 if video_id.startswith("tgif") else min_count
        videos[video_id] = {tag: count[tag] for tag in most_frequent(count, enough, len(count))}
    total = _total(videos)
    return most_frequent(total, 1, size), videos


def hybrid_files(words: list[str], videos: Annotation, size: int, min_count: int) -> dict[str, str]:
    """Return {file name: its text} in the form of hybrid_space, whose file names hold the
    options.
    """
    total, stem = _total(videos), f"video_label_th_{min_count - 1}"
    ranked = most_frequent(total, 1, len(total))
    return {
        f"{stem}.txt": "".join(
            f"{v}\t{''.join(f'{tag}:{n} ' for tag, n in tags.items())}\n"
            for v, tags in videos.items()
        ),
        f"{stem}/all_words.txt": "\n".join(f"{tag} {total[tag]}" for tag in ranked),
        f"{stem}/tag_vocab_{size}.json": json.dumps(words),
        f"{stem}/tag_vocab_{size}.txt": "\n".join(words),
    }


def _total(videos: Annotation) -> Counter[str]:
    total: Counter[str] = Counter()
    for tags in videos.values():
        total.update(tags)
    return total


@dataclass(frozen=True)
class TagLabels:
    """Tags of videos, and the vocabulary that gives each tag its place in a label vector."""

    words: list[str]
    videos: Annotation
    path: Path

    def matrix(self, video_ids: Iterable[str]) -> np.ndarray:
        """Soft labels, float32 (videos, tags), 0 to 1: count / largest count of the video's listed
        tags.

        A video with no tag has zeros. DataError names videos that the file does not mention.
        """
        video_ids = list(video_ids)
        missing = [i for i in video_ids if i not in self.videos]
        if missing:
            raise DataError(
                f"{len(missing):,} of {len(video_ids):,} videos have no line:"
                f" {', '.join(missing[:3])}",
                where=self.path,
                fix="The tags were made from other captions: run the tags step on these.",
            )
        column = {tag: n for n, tag in enumerate(self.words)}
        labels = np.zeros((len(video_ids), len(self.words)), dtype=np.float32)
        for row, video_id in zip(labels, video_ids, strict=True):
            tags = self.videos[video_id]
            largest = max(tags.values(), default=1)
            for tag, n in tags.items():
                if tag in column:
                    row[column[tag]] = n / largest
        return labels


def load(path: Path) -> TagLabels:
    """Return the tags in a folder, in whichever published form they are there.

    path: that folder, a collection of hybrid_space, or the file of the tags of each video; the
    vocabulary lies where its program keeps it, beside the file or below. Raises DataError if files
    are missing or damaged, or (Dual Encoding++) a video has a tag outside the vocabulary.
    """
    of_collection = path / "TextData" / "tags"  # as hybrid_space keeps them
    if of_collection.is_dir() and not (path / VIDEO_TAGS).exists():
        path = of_collection
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name in (VIDEO_TAGS, TAG_VOCAB):
        return read(folder / TAG_VOCAB, folder / VIDEO_TAGS)
    if path.is_dir() and (folder / VIDEO_TAGS).exists():
        return read(folder / TAG_VOCAB, folder / VIDEO_TAGS)
    hybrid = [path] if path.is_file() else sorted(folder.glob("video_label_th_*.txt"))
    vocabularies = sorted(
        p for path in hybrid[:1] for p in path.with_suffix("").glob("tag_vocab_*.json")
    )
    if len(hybrid) != 1 or len(vocabularies) != 1:
        what = f"no {VIDEO_TAGS}, and not one video_label_th_*.txt with one tag_vocab_*.json"
        raise DataError(what, where=folder, fix="Give the folder of a tags step.")
    return read_hybrid(vocabularies[0], hybrid[0])


def read(vocabulary: Path, video_tags: Path) -> TagLabels:
    """Tags in the form of Dual Encoding++."""
    words, videos = read_vocabulary(vocabulary), _read_lines(video_tags, _parse_dictionary)
    listed = set(words)
    strange = sorted({tag for tags in videos.values() for tag in tags if tag not in listed})
    if strange:
        raise DataError(
            f"{len(strange):,} tags are not in {vocabulary.name}: {', '.join(strange[:3])}",
            where=video_tags,
            fix="The two files were not made together: run the tags step again.",
        )
    return TagLabels(words, videos, video_tags)


def read_hybrid(vocabulary: Path, video_labels: Path) -> TagLabels:
    """Tags in the form of hybrid_space; tags outside the vocabulary count for the largest count
    only.
    """
    return TagLabels(
        read_vocabulary(vocabulary), _read_lines(video_labels, _parse_pairs), video_labels
    )


def read_vocabulary(path: Path) -> list[str]:
    """Return the tags of a `tag_vocab.json` (of either form) in the order of their places.
    DataError if it is none.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot be read as a tag vocabulary: {error}", where=path, fix=_FIX
        ) from error
    words = value
    if isinstance(value, dict):
        places = [place for place in value.values() if type(place) is int]
        if sorted(places) != list(range(len(value))):
            raise DataError(
                f"the places of {len(value):,} tags are not 0 to {len(value) - 1:,}",
                where=path,
                fix=_FIX,
            )
        words = sorted(value, key=value.__getitem__)
    if not isinstance(words, list) or not words or not all(isinstance(tag, str) for tag in words):
        raise DataError("holds no tags", where=path, fix=_FIX)
    if len(set(words)) != len(words):
        raise DataError("a tag occurs twice", where=path, fix=_FIX)
    return words


def _read_lines(path: Path, parse: Callable[[str], dict[str, int]]) -> Annotation:
    videos: Annotation = {}
    for n, line in enumerate(assets.read_lines(path), start=1):
        video_id, tab, rest = line.partition("\t")
        try:
            if not tab or video_id in videos:
                raise ValueError(
                    "no tab after the video id" if not tab else f"a second line for {video_id}"
                )
            videos[video_id] = parse(rest)
        except ValueError as error:
            raise DataError(
                f"{error}. Nothing in it was run", where=f"{path}:{n}", fix=_FIX
            ) from error
    return videos


def _parse_dictionary(text: str) -> dict[str, int]:
    """Return {'tag': count, ...} as Python prints it (Python 2: u'tag'), and nothing else."""
    text = text.strip()
    if text[:1] != "{" or text[-1:] != "}" or len(text) < 2:
        raise ValueError(f"expected {{'tag': count, ...}}, found {text[:40]!r}")
    inside, position, tags = text[1:-1].rstrip(), 0, {}
    while position < len(inside):
        entry = _ENTRY.match(inside, position)
        if entry is None:
            raise ValueError(f"expected 'tag': count, found {inside[position : position + 40]!r}")
        tags[entry[1] if entry[1] is not None else entry[2]] = int(entry[3])
        position = entry.end()
    return tags


def _parse_pairs(text: str) -> dict[str, int]:
    """tag:count tag:count"""
    pairs = [pair.rpartition(":") for pair in text.split()]
    wrong = [
        pair for pair in pairs if not pair[0] or not pair[2].isascii() or not pair[2].isdigit()
    ]
    if wrong:
        raise ValueError(f"expected tag:count, found {''.join(wrong[0])[:40]!r}")
    return {tag: int(n) for tag, _, n in pairs}
