"""Make `data/wordnet` from WordNet's dictionary files: how the shipped tables came about. Run it
only to remake them.

    apt-get install wordnet-base                 (Debian package 1:3.0-37)
    python -m tools.build_wordnet_tables /usr/share/wordnet

Kept: the entries of one word of index.{noun,verb,adj,adv}, one per line, and the lines of *.exc
whose first word is one word. Nothing else of WordNet is needed to find a lemma. gzip without a
time, so the bytes do not depend on the day.
"""

import gzip
import sys
from pathlib import Path

from pipeline.text import morphy


def main(source: Path, target: Path = morphy.SHIPPED) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in morphy.FILES.values():
        words, irregular = morphy.read_dictionary(source, name)
        _write(target / f"{name}.txt.gz", words)
        _write(
            target / f"{name}.exc.txt.gz",
            [" ".join([word, *bases]) for word, bases in irregular.items()],
        )


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes(
        gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=9, mtime=0)
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
