import json
import pickle
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text import vocab
from pipeline.text.encoder import TextEncoder

COUNTS = Counter({"dog": 2, "a": 5, "runs": 2, "rare": 1, "the": 5})


def test_four_special_entries_then_words_by_falling_count_ties_by_first_appearance() -> None:
    made = vocab.build(COUNTS, min_count=2)

    assert made.words == ["<pad>", "<s>", "</s>", "<unk>", "a", "the", "dog", "runs"]
    assert [made.ids[word] for word in made.words] == list(range(8))


def test_size_does_not_count_the_special_entries() -> None:
    assert vocab.build(COUNTS, min_count=1, size=3).words[4:] == ["a", "the", "dog"]


def test_saved_file_has_the_published_bytes_and_reads_back(tmp_path: Path) -> None:
    made = vocab.build(Counter({"a": 9}), 5)

    made.save(tmp_path / "vocab.json")

    text = '{\n  "<pad>": 0,\n  "<s>": 1,\n  "</s>": 2,\n  "<unk>": 3,\n  "a": 4\n}'
    assert (tmp_path / "vocab.json").read_text() == text
    assert vocab.load(tmp_path) == vocab.load(tmp_path / "vocab.json") == made


def test_captions_are_cleaned_by_default_and_raw_on_request() -> None:
    made = vocab.build(COUNTS, 1)

    assert made.encode("The dog, runs!") == [made.ids["the"], made.ids["dog"], made.ids["runs"]]
    assert made.encode("The dog, runs!", clean=False) == [3, 3, 3]
    assert made.encode("...") == []


def test_hybrid_vocabulary_keeps_the_order_of_appearance_and_wraps_captions() -> None:
    made = vocab.build_hybrid(COUNTS, "rnn", 2)

    assert made.words == ["<pad>", "<start>", "<end>", "<unk>", "dog", "a", "runs", "the"]
    assert made.encode("The cat") == [1, 7, 3, 2]


def test_hybrid_bag_of_words_leaves_unknown_words_out() -> None:
    made = vocab.build_hybrid(COUNTS, "bow", 2)

    assert made.words == ["dog", "a", "runs", "the"]
    assert made.encode("The cat runs") == [3, 2]


class Vocabulary:
    """What hybrid_space pickles."""

    def __init__(self, words: list[str]):
        self.word2idx = {word: number for number, word in enumerate(words)}
        self.idx2word = dict(enumerate(words))
        self.idx = len(words)


def test_a_collection_of_hybrid_space_is_searched_for_its_vocabularies(tmp_path: Path) -> None:
    for style, words in (("rnn", ["<pad>", "<start>", "<end>", "<unk>", "dog"]), ("bow", ["cat"])):
        folder = tmp_path / "TextData" / "vocabulary" / style
        folder.mkdir(parents=True)
        (folder / "word_vocab_5.pkl").write_bytes(pickle.dumps(Vocabulary(words)))

    for given in (tmp_path, tmp_path / "TextData" / "vocabulary"):
        found = vocab.load(given)
        assert found.words[-1] == "dog"
        assert vocab.load_bag(given, found).words == ["cat"]


def test_hybrid_counter_lists_frequent_words_without_a_last_newline() -> None:
    assert vocab.counter_text(COUNTS, 2) == "a 5\nthe 5\ndog 2\nruns 2"


def test_unknown_share_counts_every_occurrence() -> None:
    made = vocab.build(COUNTS, 5)

    assert made.unknown_share(["a dog", "the A."]) == 0.25
    assert made.unknown_share(["a dog", "the A."], clean=False) == 0.5
    assert made.unknown_share([]) == 0


def test_published_pickle_is_read_whatever_module_its_class_names(tmp_path: Path) -> None:
    path = tmp_path / "word_vocab_5.pkl"
    # protocol 0 by hand: an object of __main__.Vocabulary made without a call, its attributes set
    path.write_bytes(
        b"\x80\x02c__main__\nVocabulary\n)\x81}X\x08\x00\x00\x00word2idx}(X\x01\x00\x00\x00aK\x00X\x01\x00\x00\x00bK\x01usb."
    )

    assert vocab.load(path).words == ["a", "b"]


def test_a_hostile_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "word_vocab_5.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "was-here").encode() + b"'\ntR.")

    with pytest.raises(DataError, match="asks for os.system, which was refused"):
        vocab.load(path)

    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("folder, words", [("bow", ["the", "dog"]), ("rnn", ["the", "dog", "UNK"])])
def test_word_lists_of_w2vv_are_read(tmp_path: Path, folder: str, words: list[str]) -> None:
    path = tmp_path / folder / "word_vocab_5.txt"
    path.parent.mkdir()
    path.write_text("the\ndog\n")

    made = vocab.load(path)

    assert made.words == words
    assert made.encode("dog cat") == ([2, 3] if folder == "rnn" else [1])
    assert len(made) == (4 if folder == "rnn" else 2)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "{}",
        "3",
        '{"a": "0"}',
        '{"a": 0, "b": 2}',
        '{"a": 0, "b": 0}',
        '{"a": -1}',
        '{"a": true}',
        "[[" * 9999,
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.json").write_text(content)

    with pytest.raises(DataError, match="vocab.json.*\n.*Give the vocab.json"):
        vocab.load(tmp_path)


def test_recorded_batch_is_encoded_raw_and_padded(golden: Path) -> None:
    import numpy as np

    case = golden / "dual-encoding" / "batching"
    if not case.exists():
        pytest.skip("../shared is not here")
    captions = dict(line.split(" ", 1) for line in (case / "captions.txt").read_text().splitlines())
    with np.load(case / "outputs.npz") as expected:
        made = vocab.load(case / "vocab.json")
        texts = [captions[i] for i in expected["caption_ids"].tolist()]
        batch = TextEncoder("words", vocabulary=made, clean=False).encode(texts)

        assert np.array_equal(batch["text"], expected["caption_batch"])
        assert np.array_equal(batch["text_mask"].sum(1), expected["caption_lengths"])


WORDS = vocab.Vocabulary({"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "a": 4, "dog": 5})
BAG = vocab.Vocabulary({"zebra": 0, "a": 1, "the": 2})


def test_two_vocabularies_become_one_that_says_where_each_word_counts() -> None:
    both = vocab.joined(WORDS, BAG)

    assert both.words == [*WORDS.words, "zebra", "the"]
    assert both.encode("a the dog sings", boundaries=False) == [4, 7, 5, 3]
    assert vocab.bag_columns(WORDS, BAG).tolist() == [-1, -1, -1, -1, 1, -1, 0, 2]


@pytest.mark.parametrize(
    ("bag", "is_kept"), [({"a": 0, "dog": 1}, False), ({"dog": 0, "a": 1}, True), ({"a": 0}, True)]
)
def test_a_bag_vocabulary_is_kept_only_where_it_is_not_that_of_the_words(
    tmp_path: Path, bag: dict, is_kept
) -> None:
    (tmp_path / vocab.BAG_FILE).write_text(json.dumps(bag))

    found = vocab.load_bag(tmp_path, WORDS)

    assert (found is not None) == is_kept
    assert vocab.load_bag(tmp_path / vocab.BAG_FILE, WORDS) == found


def test_a_folder_with_two_published_vocabularies_is_not_guessed_from(tmp_path: Path) -> None:
    (tmp_path / "rnn").mkdir()
    for n in (3, 5):
        (tmp_path / f"rnn/word_vocab_{n}.pkl").touch()

    with pytest.raises(
        DataError, match="2 vocabularies: word_vocab_3.pkl, word_vocab_5.pkl\n.*Name one"
    ):
        vocab.load(tmp_path)
