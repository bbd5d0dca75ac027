import pytest

from pipeline.text.words import clean_words, count_words, raw_words, tokens


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
