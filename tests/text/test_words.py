import unicodedata

import pytest

from pipeline.text.words import Losses, clean_words, count_words, raw_words, tokens


def test_clean_words_part_at_everything_but_ascii_letters_and_digits() -> None:
    assert clean_words("A man's T-shirt, 2nd  (RED)!") == [
        "a",
        "man",
        "s",
        "t",
        "shirt",
        "2nd",
        "red",
    ]


@pytest.mark.parametrize(
    "text", ["café", "na\u212ave", "x\ud800y", "snow\u2603man", "tab\tand\x00nul"]
)
def test_cleaning_equals_the_published_rule_on_any_character(text: str) -> None:
    published = "".join(
        c if c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" else " "
        for c in text
    )

    assert clean_words(text) == published.lower().split()


def test_raw_words_keep_capitals_and_punctuation() -> None:
    assert raw_words(" Big game,  car. ") == ["Big", "game,", "car."]


def test_tokens_split_the_six_contractions_and_nothing_else() -> None:
    assert (
        tokens("I'm gonna, cannot WANNA gotta lemme gimme cannots")
        == "i m gon na can not wan na got ta lem me gim me cannots".split()
    )


def test_count_words_equals_cleaning_every_caption_in_order() -> None:
    captions = ["B a!", "a-c", "", "Äb \ud800 c", "z"] * 3000

    counts = count_words(captions)

    assert list(counts.items()) == [("b", 6000), ("a", 6000), ("c", 6000), ("z", 3000)]


def test_count_words_of_nothing_is_empty() -> None:
    assert count_words([]) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Eine müde Katze läuft über die Straße!", "eine müde katze läuft über die straße"),
        ("cafe\u0301", "caf\u00e9"),
        ("Кошка бежит, 2 раза", "кошка бежит 2 раза"),
        ("猫が走る2回", "猫 が 走 る 2 回"),
        ("कुत्ता दौड़ता", "कुत्ता दौड़ता"),
        ("แมววิ่ง", "แ ม ว วิ่ ง"),
        ("القط يجري", "القط يجري"),
        ("👍👍 !!!", ""),
        ("A man's T-shirt_x", "a man s t shirt x"),
    ],
)
def test_unicode_words_are_those_of_the_language(text: str, words: str) -> None:
    assert clean_words(text, "unicode") == unicodedata.normalize("NFKC", words).split()


def test_both_rules_agree_on_ascii() -> None:
    text = "".join(map(chr, range(128)))

    assert clean_words(text, "unicode") == clean_words(text, "ascii")


def test_what_a_rule_drops_is_counted_and_said() -> None:
    texts = ["müde Katze", "你好", "!!!", "a cat 👍"]

    published, ours = Losses.of(texts, "ascii"), Losses.of(texts, "unicode")

    assert published.dropped.total() == 3
    assert published.wordless == ["你好", "!!!"]
    assert str(published).startswith("3 characters are dropped (ü你好); 2 of 4 have no word left")
    assert (ours.wordless, dict(ours.dropped)) == (["!!!"], {"👍": 1})
    assert str(Losses.of(["a cat"], "ascii")) == ""
