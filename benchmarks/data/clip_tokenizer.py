"""CLIP's byte pairs for 100,000 captions: ours against the published way, which repairs and cuts
every caption whole.

The stand-in is written from docs/specs/clip-backbone.md, section 5: every caption goes through all
repairs, the pattern over the whole caption, strings merged pair by pair, and pieces met before
remembered. Captions are made of 12,000 words with the frequencies of English; one in twenty has
typographic quotes, accents or an entity.

Run: python -m benchmarks.data.clip_tokenizer      (ten seconds; CPU seconds of one thread)
"""

import argparse
import gzip
import html
import itertools
import platform
import random
import time
from collections.abc import Callable

import click
import ftfy
import regex

from pipeline.text.assets import DATA
from pipeline.text.clip_bpe import ClipBpe, byte_characters, find_table

PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Published:
    def __init__(self) -> None:
        lines = gzip.decompress(find_table().read_bytes()).decode().split("\n")[1:48895]
        merges = [tuple(line.split()) for line in lines]
        self.characters = byte_characters()
        names = [
            *self.characters.values(),
            *(f"{c}</w>" for c in self.characters.values()),
            *map("".join, merges),
        ]
        self.ids = {name: i for i, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = regex.sub(r"\s+", " ", text).strip().lower()
        ids: list[int] = []
        for piece in regex.findall(PATTERN, text):
            if piece not in self.known:
                self.known[piece] = [self.ids[part] for part in self.merged(piece)]
            ids.extend(self.known[piece])
        return ids

    def merged(self, piece: str) -> list[str]:
        word = [self.characters[byte] for byte in piece.encode()]
        word[-1] += "</w>"
        while len(word) > 1:
            best = min(
                zip(word, word[1:], strict=False),
                key=lambda pair: self.ranks.get(pair, float("inf")),
            )
            if best not in self.ranks:
                break
            joined, i = [], 0
            while i < len(word):
                two = tuple(word[i : i + 2]) == best
                joined.append("".join(best) if two else word[i])
                i += 2 if two else 1
            word = joined
        return word


def captions(count: int) -> list[str]:
    rng = random.Random(1)
    lines = gzip.decompress((DATA / "wordnet" / "noun.txt.gz").read_bytes()).decode().splitlines()
    words = [line.split()[0] for line in lines if line and line[0].isalpha()]
    words = rng.sample(words, 12_000)
    weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(words))))
    odd = ["café", "“quoted”", "rock &amp; roll", "naïve", "3½", "man’s"]
    made = []
    for i in range(count):
        text = rng.choices(words, cum_weights=weights, k=rng.randint(5, 16))
        text += [rng.choice(odd)] if i % 20 == 0 else []
        made.append(" ".join(text).replace("_", " ") + rng.choice(["", "", "."]))
    return made


def timed(run: Callable[[], list]) -> tuple[float, list]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=100_000)
    texts = captions(parser.parse_args().captions)
    published, ours = Published(), ClipBpe.load()
    theirs = timed(lambda: [published.encode(text) for text in texts])
    first = timed(lambda: [ours.encode(text) for text in texts])
    again = timed(lambda: [ours.encode(text) for text in texts])
    batch = timed(lambda: list(ours.batch(texts, 32)))
    assert theirs[1] == first[1]
    click.echo(
        f"{platform.processor() or platform.machine()}, {len(texts):,} captions,"
        f" {sum(map(len, first[1])):,} ids"
    )
    click.echo(f"{'':<34}{'seconds':>9}{'captions/s':>13}{'faster':>9}")
    rows = {
        "as published": theirs,
        "ours, new words": first,
        "ours, words known": again,
        "ours, padded to 32": batch,
    }
    for name, (seconds, _) in rows.items():
        click.echo(
            f"{name:<34}{seconds:>9.2f}{len(texts) / seconds:>13,.0f}{theirs[0] / seconds:>8.1f}x"
        )
    click.echo("all ids equal")


if __name__ == "__main__":
    main()
