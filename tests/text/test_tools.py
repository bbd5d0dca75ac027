import gzip
from pathlib import Path

from pipeline.text import morphy
from pipeline.text.perceptron import Perceptron
from tools import build_wordnet_tables
from tools.train_tagger import Trainer


def test_tables_are_the_same_bytes_on_any_day_and_hold_single_words(tmp_path: Path) -> None:
    for name in morphy.FILES.values():
        (tmp_path / f"index.{name}").write_text("  1 licence\nhot_dog n 1\ndog n 1\n")
        (tmp_path / f"{name}.exc").write_text("geese goose\nhot_dogs hot_dog\n")

    for target in ("a", "b"):
        build_wordnet_tables.main(tmp_path, tmp_path / target)

    tables = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert tables == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert gzip.decompress(tables["noun.txt.gz"]) == b"dog\n"
    assert gzip.decompress(tables["noun.exc.txt.gz"]) == b"geese goose\n"


def test_trainer_learns_to_tag_by_context() -> None:
    sentences = [(["they", "walk"], ["PRP", "VBP"]), (["a", "walk"], ["DT", "NN"])] * 10

    weights = Trainer({"a": "DT", "they": "PRP"}, ["DT", "NN", "PRP", "VBP"]).train(sentences)

    tagger = Perceptron(weights, {"a": "DT", "they": "PRP"}, ["DT", "NN", "PRP", "VBP"])
    assert [tagger.tag(words) for words, _ in sentences[:2]] == [tags for _, tags in sentences[:2]]
