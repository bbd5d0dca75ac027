"""Handlers of system "dual-encoding" for the text stages: vocabularies, tags, word vectors, tiny
captions.

The recorded tags were made with NLTK's tagger. Its data are looked for where the tags step looks,
then in a folder `data/nltk` beside or above the case; without them a case fails with a sentence
that says so.
"""

import gzip
import io
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.datasets import caption_files
from pipeline.datasets.base import Caption
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.text import morphy, pickles, tag_files, vector_files, vocab
from pipeline.text.perceptron import Perceptron
from pipeline.text.tagger import find
from pipeline.text.tags import Reader, TagCounts
from pipeline.text.word_vectors import Vectors, weight_matrix
from pipeline.text.words import count_words

_ONE_CAPTION = ("MPII-MD", "TGIF")


class _Text:
    """The captions of a case, and what is computed from them once."""

    def __init__(self, case: Case, name: str = "captions.txt"):
        self.case, self.path = case, case.path(name)

    def other(self, name: str) -> "_Text":
        """Other captions of the same case, read by the same tagger."""
        other = _Text(self.case, name)
        other.reader = self.reader
        return other

    @cached_property
    def captions(self) -> list[Caption]:
        options = caption_files.Options(root=self.path)
        return caption_files.Dataset(options).load().texts(options.split)

    def vocabulary(self, settings: dict[str, int]) -> vocab.Vocabulary:
        counts = count_words(caption.text for caption in self.captions)
        return vocab.build(counts, settings["freq_cutoff"], settings["size"])

    @cached_property
    def reader(self) -> Reader:
        return Reader(_nltk_tagger(self.case), morphy.load())

    @cached_property
    def tags(self) -> TagCounts:
        return self.reader.count(self.captions)


def _nltk_tagger(case: Case) -> Perceptron:
    source = find("auto")
    if source.name == "nltk":
        return source.load()
    beside = (folder / "data" / "nltk" for folder in case.folder.resolve().parents)
    return find(
        "nltk", next((folder for folder in beside if (folder / "taggers").is_dir()), None)
    ).load()


def text_stages(case: Case) -> Iterator[Comparison]:
    """Yield every file that `commands` names, made from the captions of the case; tokens, shares
    and ids of captions.
    """
    text = _Text(case)
    yield equal("captions.count", len(text.captions), case.info["captions"]["count"])
    for names, words in case.info["commands"].items():
        settings = _settings(words)
        for name in names.split(" + "):
            yield _file_row(
                name, _MAKERS[_maker(name)](_captions_for(name, text), settings, name), case
            )
    yield _token_rows(text)
    yield from _share_rows(text)
    yield from _index_rows(text)


def _settings(words: object) -> dict:
    """Numbers of a command: a dictionary, or words like "size 50000, freq_cutoff 5"."""
    return (
        words
        if isinstance(words, dict)
        else {key: int(n) for key, n in re.findall(r"(\w+) (\d+)", words)}
    )


def _captions_for(name: str, text: _Text) -> _Text:
    """Return a file called `x_tiny.json` is made from `captions_tiny.txt`, where the case has such
    captions.
    """
    own = f"captions_{Path(name).stem.rpartition('_')[2]}.txt"
    return text.other(own) if own != name and (text.case.folder / own).exists() else text


def _maker(name: str) -> str:
    return max((prefix for prefix in _MAKERS if name.startswith(prefix)), key=len)


def _vocab_file(text: _Text, settings: dict, name: str) -> bytes:
    return json.dumps(text.vocabulary(settings).ids, indent=2).encode()


def _tag_file(text: _Text, settings: dict, name: str) -> bytes:
    cutoffs = (settings[key] for key in ("vocab_size", "vocab_freq_cutoff", "label_freq_cutoff"))
    made = tag_files.files(*tag_files.annotate(text.tags, *cutoffs))
    return made[
        tag_files.TAG_VOCAB if name.startswith("tag_vocab") else tag_files.VIDEO_TAGS
    ].encode()


def _weight_file(text: _Text, settings: dict, name: str) -> bytes:
    """A command without a folder of vectors is the script as published, which finds none;
    the width is the same.
    """
    commands = text.case.info["commands"]
    folder = next(
        c["word2vec_dir"] for c in commands.values() if isinstance(c, dict) and "word2vec_dir" in c
    )
    words = text.vocabulary(_settings(commands["vocab.json"])).words
    vectors = vector_files.read(text.case.path(folder.rstrip("/")), words)
    if "word2vec_dir" not in settings:
        vectors = Vectors({}, vectors.dim)
    file = io.BytesIO()
    np.save(file, weight_matrix(words, vectors, settings["numpy_seed"])[0], allow_pickle=False)
    return file.getvalue()


def _tiny_file(text: _Text, settings: dict, name: str) -> bytes:
    lines = (("", caption.id, caption.text) for caption in text.captions)
    first = caption_files.first_captions(lines, settings["cap_num"])
    return "".join(f"{caption_id} {words}\n" for _, caption_id, words in first).encode()


_MAKERS = {
    "vocab": _vocab_file,
    "tag_vocab": _tag_file,
    "video_tag": _tag_file,
    "pretrained_weight": _weight_file,
    "captions": _tiny_file,
}


def _file_row(name: str, ours: bytes, case: Case) -> Comparison:
    return equal(name, ours, case.path(name).read_bytes())


def _token_rows(text: _Text) -> Comparison:
    name = text.case.info["tokens_file"].partition(":")[0]
    lines = []
    for caption in text.captions:
        tokens = (
            f"{t.text}/{t.tag}/{t.lemma or '-'}/{int(t.kept)}"
            for t in text.reader.tokens(caption.text)
        )
        lines.append(f"{caption.id}\t{' '.join(tokens)}")
    return equal(
        name, lines, gzip.decompress(text.case.path(name).read_bytes()).decode().splitlines()
    )


def _share_rows(text: _Text) -> Iterator[Comparison]:
    info, texts = text.case.info, [caption.text for caption in text.captions]
    vocabulary = text.vocabulary(_settings(info["commands"]["vocab.json"]))
    for key, expected in info["unknown_token_share"].items():
        share = round(vocabulary.unknown_share(texts, clean=not key.startswith("raw")), 5)
        yield close(f"unknown_token_share.{key}", share, expected, Tolerance(0))
    videos = tag_files.read(
        *(text.case.path(name) for name in (tag_files.TAG_VOCAB, tag_files.VIDEO_TAGS))
    ).videos
    empty, expected = (
        [v for v, tags in videos.items() if not tags],
        info["videos_with_empty_tag_dict"],
    )
    yield equal("videos_with_empty_tag_dict.count", len(empty), expected["count"])
    yield equal(
        "videos_with_empty_tag_dict.first", empty[: len(expected["first"])], expected["first"]
    )


def _index_rows(text: _Text) -> Iterator[Comparison]:
    case = text.case
    vocabulary = vocab.load(case.path("vocab.json"))
    n_captions = len(case.outputs["first200_caption_lengths"])
    ids = [vocabulary.encode(caption.text, clean=False) for caption in text.captions[:n_captions]]
    yield equal(
        "first200_caption_indices_flat",
        np.concatenate(ids),
        case.outputs["first200_caption_indices_flat"],
    )
    yield equal(
        "first200_caption_lengths", [len(i) for i in ids], case.outputs["first200_caption_lengths"]
    )
    folder = next(
        c["word2vec_dir"]
        for c in case.info["commands"].values()
        if isinstance(c, dict) and "word2vec_dir" in c
    )
    vectors = vector_files.read(case.path(folder.rstrip("/")), vocabulary.words)
    yield equal(
        "oov_rows", weight_matrix(vocabulary.words, vectors, 0)[1], case.outputs["oov_rows"]
    )


def text_stages_hybrid_space(case: Case) -> Iterator[Comparison]:
    """Vocabularies (our content against the pickles'), counters, tag files, labels and ids of
    hybrid_space.
    """
    text, options = _Text(case), case.info["options"]
    vocabularies = {}
    for style in case.info["pickles"]:
        vocabularies[style] = yield from _pickle_rows(style, text, options["threshold"])
    size, min_count = options["tag_vocab_size"], options["th4vl"] + 1
    # these collections have one caption per video, which keeps everything; the file names say what
    # was asked for
    enough = 1 if str(options.get("collection", "")).startswith(_ONE_CAPTION) else min_count
    made = tag_files.hybrid_files(
        *tag_files.annotate_hybrid(text.tags, size, enough), size, min_count
    )
    for name, ours in made.items():
        yield _file_row(f"tags/{name}", ours.encode(), case)
    yield from _hybrid_array_rows(text, vocabularies)


def _pickle_rows(style: str, text: _Text, threshold: int) -> Iterator[Comparison]:
    """Yield rows of one vocabulary; returns ours."""
    case, folder = text.case, f"vocabulary/{style}"
    counts = count_words(caption.text for caption in text.captions)
    ours = vocab.build_hybrid(counts, style, threshold)
    path = case.path(f"{folder}/word_vocab_{threshold}.pkl")
    yield equal(f"{folder}/pickle", list(vocab.load(path).ids.items()), list(ours.ids.items()))
    expected = json.loads(case.path(f"expected_{style}_word2idx.json").read_bytes())
    yield equal(f"expected_{style}_word2idx.json", list(ours.ids.items()), list(expected.items()))
    held, told = vars(pickles.read(path, shells=("Vocabulary",))), case.info["pickles"][style]
    found = {"n": len(ours), "attributes": sorted(held), "first": ours.words[: len(told["first"])]}
    found |= {key: held[key] for key in ("text_style", "idx")}
    for key, value in told.items():
        yield equal(f"pickles.{style}.{key}", found[key], value)
    yield equal(f"pickles.{style}.idx2word", held["idx2word"], dict(enumerate(ours.words)))
    name = f"{folder}/word_vocab_counter_{threshold}.txt"
    yield _file_row(name, vocab.counter_text(counts, threshold).encode(), case)
    return ours


def _hybrid_array_rows(
    text: _Text, vocabularies: dict[str, vocab.Vocabulary]
) -> Iterator[Comparison]:
    case, tolerance = text.case, Tolerance.parse(text.case.info["tolerance"])
    by_id = {caption.id: caption for caption in text.captions}
    captions = [by_id[i] for i in case.outputs["caption_ids"].tolist() if i in by_id]
    yield equal("caption_ids", [caption.id for caption in captions], case.outputs["caption_ids"])
    labels = tag_files.load(case.path("tags")).matrix(caption.video_id for caption in captions)
    yield close("labels", labels, case.outputs["labels"], tolerance)
    ids = [vocabularies["rnn"].encode(caption.text) for caption in captions]
    yield equal("caption_indices_flat", np.concatenate(ids), case.outputs["caption_indices_flat"])
    yield equal("caption_lengths", [len(i) for i in ids], case.outputs["caption_lengths"])
    bag = vocabularies["bow"]
    counts = [
        np.bincount(np.array(bag.encode(c.text), dtype=np.int64), minlength=len(bag))
        for c in captions
    ]
    yield close("bow", np.stack(counts), case.outputs["bow"], tolerance)


HANDLERS = {"text-stages": text_stages, "text-stages-hybrid-space": text_stages_hybrid_space}
