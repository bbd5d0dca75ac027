from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text import assets


def test_there_are_179_stop_words_in_lower_case() -> None:
    words = assets.stop_words()

    assert len(words) == 179
    assert {"the", "don", "s", "wouldn't", "very"} <= words
    assert all(word == word.lower() for word in words)


def test_stop_words_equal_those_of_the_published_systems(shared: Path) -> None:
    theirs = (shared / "data/nltk/corpora/stopwords/english").read_text().split()

    assert assets.stop_words() == set(theirs)


def test_an_asset_that_is_gone_is_named_with_what_to_do() -> None:
    with pytest.raises(DataError, match="gone.txt: cannot be read.*\n.*comes with the toolkit"):
        assets.read_lines(assets.DATA / "gone.txt")


def test_a_damaged_packed_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noun.txt.gz").write_bytes(b"\x1f\x8b\x08cut")

    with pytest.raises(DataError, match="noun.txt.gz"):
        assets.read_lines(tmp_path / "noun.txt.gz")


def test_a_version_follows_the_content_of_all_its_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("x")
    before = assets.version("list", paths)

    paths[1].write_text("y")

    assert assets.version("list", paths) != before
