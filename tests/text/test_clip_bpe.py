import html
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import ftfy
import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.text import clip_bpe
from pipeline.text.clip_bpe import ClipBpe, byte_characters, clean, find_table, merge

ROOT = Path(__file__).resolve().parents[2]
E = "</w>"
MERGES = [("t", "h"), ("th", "e" + E), ("a", "t" + E), ("c", "at" + E), ("a", "a"), ("aa", "aa")]


@pytest.fixture(scope="module")
def published() -> ClipBpe:
    try:
        return ClipBpe.load()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")


def recorded(golden: Path) -> list[dict]:
    lines = (golden / "clip-tokenizer" / "pairs.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def test_cleaning_is_as_recorded(golden: Path) -> None:
    assert [clean(pair["text"]) for pair in recorded(golden)] == [
        pair["cleaned"] for pair in recorded(golden)
    ]


def test_ids_are_as_recorded(published: ClipBpe, golden: Path) -> None:
    assert [published.encode(pair["text"]) for pair in recorded(golden)] == [
        pair["ids"] for pair in recorded(golden)
    ]


@pytest.mark.parametrize("words", [20, 32, 64, 77])
def test_padded_batches_are_as_recorded(published: ClipBpe, golden: Path, words: int) -> None:
    texts = [pair["text"] for pair in recorded(golden)]

    ids, mask = published.batch(texts, words)

    with np.load(golden / "clip-tokenizer" / "padded.npz") as expected:
        assert np.array_equal(ids, expected[f"ids_{words}"])
        assert np.array_equal(mask, expected[f"mask_{words}"].astype(bool))


def test_published_table_has_the_published_ids(published: ClipBpe) -> None:
    assert (published.size, published.start, published.end) == (49408, 49406, 49407)
    assert published.encode("a diagram") == [320, 22697]


def plain_clean(text: str) -> str:
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def test_short_way_through_ascii_is_the_long_way() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(
            rng.choices([chr(c) for c in range(32, 127)] + [" "] * 20, k=rng.randint(0, 30))
        )
        assert clean(text) == plain_clean(text)


@pytest.mark.parametrize(("text", "cleaned"), [
    ("  Two\t dogs\n\nRUN ", "two dogs run"),
    ("a &amp;amp; b", "a & b"),
    ("a <b> &amp;amp; c", "a <b> & c"),  # where there are tags, the repairs leave entities alone
    ("it’s “fine”", "it's \"fine\""),
    ("cafÃ© ﬁne", "café fine"),
    ("a\x00b\x1b[31mc", "abc"),
    ("a\u2003b\u00a0c", "a b c"),
    ("", ""),
    (" \t\n ", ""),
])  # fmt: skip
def test_texts_are_repaired_and_levelled(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_every_byte_has_a_printable_character_of_its_own() -> None:
    characters = byte_characters()

    assert sorted(characters) == list(range(256))
    assert len(set(characters.values())) == 256
    assert all(not c.isspace() and c.isprintable() for c in characters.values())
    assert [characters[b] for b in (33, 0, 32)] == ["!", "\u0100", "\u0120"]


def named(bpe: ClipBpe, ids: list[int]) -> list[str]:
    characters = list(byte_characters().values())
    names = (
        characters
        + [c + E for c in characters]
        + ["".join(pair) for pair in MERGES]
        + ["<start>", "<end>"]
    )
    return [names[i] for i in ids]


@pytest.mark.parametrize(("text", "parts"), [
    ("the cat", ["the" + E, "cat" + E]),
    ("The CAT", ["the" + E, "cat" + E]),
    ("tha", ["th", "a" + E]),
    ("aaaaat", ["aaaa", "at" + E]),
    ("cat's", ["cat" + E, "'", "s" + E]),
    ("3a12", ["3" + E, "a" + E, "1" + E, "2" + E]),
    ("?!a", ["?", "!" + E, "a" + E]),
    ("é", ["Ã", "©" + E]),
    ("<|endoftext|>", ["<end>"]),
    ("a<|STARTOFTEXT|>", ["a" + E, "<start>"]),
    ("%<|endoftext|>", ["%", "<", "|" + E, *"endoftex", "t" + E, "|", ">" + E]),
    ("", []),
])  # fmt: skip
def test_words_are_cut_and_merged(text: str, parts: list[str]) -> None:
    bpe = ClipBpe(MERGES)

    assert named(bpe, bpe.encode(text)) == parts


def plain_merge(ids: list[int], merged: dict) -> list[int]:
    """Every occurrence of the best pair, from the left; then again."""
    while pairs := [p for p in zip(ids, ids[1:], strict=False) if p in merged]:
        best, joined = min(pairs, key=merged.get), []
        while ids:
            fits = tuple(ids[:2]) == best
            joined.append(merged[best] if fits else ids[0])
            ids = ids[2 if fits else 1 :]
        ids = joined
    return ids


def test_merging_by_a_queue_is_merging_pair_by_pair() -> None:
    rng = random.Random(0)
    for _ in range(500):
        merged, parts = {}, [0, 1, 2]
        for new in range(3, 12):
            merged.setdefault((rng.choice(parts), rng.choice(parts)), new)
            parts.append(new)
        ids = rng.choices([0, 1, 2], k=rng.randint(1, 25))
        assert merge(ids, merged) == plain_merge(list(ids), merged)


def test_long_word_takes_no_time_worth_mentioning() -> None:
    bpe = ClipBpe(MERGES)

    ids = bpe.encode("a" * 40_001 + "t")

    assert len(ids) == 10_001  # by the plain way a minute


def test_batch_keeps_the_end_of_what_is_cut() -> None:
    bpe = ClipBpe(MERGES)

    ids, mask = bpe.batch(["the cat", "", "the " * 500], 5)

    the, cat = bpe.encode("the cat")
    start, end = bpe.start, bpe.end
    assert ids.tolist() == [
        [start, the, cat, end, 0],
        [start, end, 0, 0, 0],
        [start, the, the, the, end],
    ]
    assert mask.sum(1).tolist() == [4, 2, 5]
    assert (ids.dtype, mask.dtype) == (np.int64, np.bool_)


def test_batch_without_room_for_start_and_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        ClipBpe(MERGES).batch(["a"], 1)


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_bpe, "_MOST_WORDS", 3)
    bpe = ClipBpe(MERGES)

    ids = [bpe.encode(text) for text in ("a b c d e", "the cat", "a b c d e")]

    assert ids[0] == ids[2]
    assert len(bpe._words) <= 3


def test_without_the_package_the_error_says_which_command_installs_it() -> None:
    code = (
        "import sys; from pipeline.text.clip_bpe import ClipBpe; sys.path.clear(); ClipBpe.load()"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert "the byte-pair table of CLIP is not installed" in result.stderr
    assert f"Run: {sys.executable} -m pip install --no-deps openai-clip==1.0.1" in result.stderr


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / clip_bpe.TABLE
    path.write_bytes(b"something else")

    with pytest.raises(
        DataError,
        match=r"this is not CLIP's table: sha256 .*\n.*pip install --no-deps openai-clip",
    ):
        ClipBpe.load(path)


def test_the_package_is_found_without_importing_it(published: ClipBpe) -> None:
    assert find_table().name == clip_bpe.TABLE
    assert "clip" not in sys.modules
