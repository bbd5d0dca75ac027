from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text import morphy
from pipeline.text.morphy import Morphy


@pytest.fixture(scope="module")
def wordnet() -> Morphy:
    return morphy.load()


@pytest.mark.parametrize(
    "word, pos, lemma",
    [
        ("riding", "v", "rid"),  # the shortest of ride and rid
        ("men", "n", "men"),  # a WordNet noun itself, as short as man and first
        ("leaves", "n", "leaf"),
        ("cookies", "n", "cooky"),
        ("is", "v", "be"),
        ("discusses", "n", "discus"),  # two substitutions: NLTK 3.8, not 3.9
        ("buildings", "v", "build"),
        ("slicess", "n", "slice"),
        ("better", "a", "good"),
        ("bigger", "a", "big"),
        ("quickly", "r", "quickly"),
        ("zebraing", "n", "zebraing"),  # unknown: the word itself
    ],
)
def test_lemma_follows_the_rule_of_nltk_3_8(
    wordnet: Morphy, word: str, pos: str, lemma: str
) -> None:
    assert wordnet.lemma(word, pos) == lemma


def test_an_irregular_form_hides_the_rules() -> None:
    wordnet = Morphy({"n": frozenset({"axis", "axe"})}, {"n": {"axes": ["axis"]}})

    assert wordnet.base_forms("axes", "n") == ["axis"]


def test_a_hostile_word_takes_no_time(wordnet: Morphy) -> None:
    assert wordnet.lemma("ses" * 2000, "n") in wordnet.words["n"]


def test_dictionary_folder_is_read_like_the_shipped_tables(tmp_path: Path) -> None:
    for name in morphy.FILES.values():
        entries = (
            "  1 licence text\ncar n 1 0\nmotor_car n 1 0\ncomics n 1 0\n"
            if name == "noun"
            else "be v 1\n"
        )
        (tmp_path / f"index.{name}").write_text(entries)
        (tmp_path / f"{name}.exc").write_text(
            "geese goose\nmotor_cars motor_car\n" if name == "noun" else ""
        )

    words, irregular = morphy.read_dictionary(tmp_path, "noun")

    assert (words, irregular) == (["car", "comics"], {"geese": ["goose"]})
    assert morphy.load(tmp_path).lemma("cars", "n") == "car"


def test_missing_dictionary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="index.noun"):
        morphy.load(tmp_path)


def test_version_names_rule_and_tables() -> None:
    assert morphy.version().startswith("morphy as in NLTK 3.8, WordNet 3.0 (sha256 ")


def test_shipped_tables_equal_debians_wordnet() -> None:
    debian = Path("/usr/share/wordnet")
    if not (debian / "index.noun").exists():
        pytest.skip("wordnet-base is not installed")

    assert morphy.load() == morphy.load(debian)
