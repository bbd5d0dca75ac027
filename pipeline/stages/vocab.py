"""Make the vocabulary of the captions: words and their ids.

    python cli.py vocab --in captions.txt --out vocab

Words are cleaned (letters and digits, lower case) and counted over the captions of one split. Those
that occur at least `min_count` times are kept. Published data sets keep the published rule, A to Z
alone; own captions keep the letters of every language.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline import log, registry
from pipeline.core.files import atomic_write, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import Record, digest
from pipeline.datasets import base
from pipeline.errors import DataError
from pipeline.text import vocab
from pipeline.text.words import Letters, Losses, count_words

Made = tuple[vocab.Vocabulary, dict[str, str]]  # the vocabulary, and {file name: its text}


class Stage(Base):
    needs: ClassVar[dict[str, Need]] = {"annotations": Need("annotations")}
    makes: ClassVar[str] = "vocab"

    class Options(BaseModel, extra="forbid"):
        min_count: int = Field(5, ge=1, description="how often a word must occur in the captions")
        size: int = Field(
            50_000, ge=1, description=("largest number of words, special entries not counted")
        )
        split: str = Field("train", description="split whose captions are counted")
        letters: Literal["auto", "ascii", "unicode"] = Field(
            "auto",
            description=(
                "what words are made of: ascii (A to Z, as published) or unicode (any language);"
                " auto: unicode for own captions, ascii for published data sets"
            ),
        )
        form: Literal["dual_encoding_pp", "hybrid_space"] = Field(
            "dual_encoding_pp",
            description=(
                "dual_encoding_pp: the most frequent word first; hybrid_space: order of"
                " appearance, any number of words, and a second vocabulary for bags of words"
            ),
        )

    # part of the item's key instead, so that published vocabularies keep their fingerprint
    indifferent: ClassVar[frozenset[str]] = frozenset({"letters"})

    def items(self) -> Iterable[Item]:
        content = self.inputs["annotations"].content
        yield Item("vocab", digest(content if self._letters == "ascii" else [content, "unicode"]))

    def process(self, item: Item) -> Outcome:
        annotations = base.load(self.inputs["annotations"])
        log.once(annotations.said(self.options.split))
        captions = annotations.texts(self.options.split)
        spoken = [caption.text for caption in captions]
        losses = Losses.of(spoken, self._letters)
        if str(losses):
            log.warning(f"vocab: split {self.options.split}: {losses}{self._hint(losses)}")
        counts = count_words(spoken, self._letters)
        made, texts = _FORMS[self.options.form](counts, self.options)
        if not made.ids.keys() & counts.keys():
            raise DataError(
                f"no word of {len(captions):,} captions occurs {self.options.min_count} times"
                + (f"; {losses}" if str(losses) else ""),
                where=f"split {self.options.split}",
                fix=self._advice(counts),
            )
        for name, text in texts.items():
            atomic_write(self.out / name, text)
        return Outcome(
            outputs={name: written(self.out / name) for name in texts},
            facts=_facts(captions, counts, made) | self._lost(losses),
        )

    def finish(self, records: list[Record]) -> dict:
        return records[0].facts if records else {}

    @property
    def _letters(self) -> Letters:
        if self.options.letters != "auto":
            return self.options.letters
        made = self.inputs["annotations"]
        return registry.find("dataset", made.options["type"]).Dataset.letters

    def _hint(self, losses: Losses) -> str:
        is_ascii = self._letters == "ascii" and losses.dropped
        return ". --letters unicode keeps the letters of every language" if is_ascii else ""

    def _advice(self, counts: Counter[str]) -> str:
        """Return what helps: another count, or another rule of letters."""
        if counts:
            most = max(counts.values())
            return f"The most frequent word occurs {most} times: lower min_count."
        if self._letters == "ascii":
            return "Are they in another script? --letters unicode keeps letters of every language."
        return "The captions hold no letters or digits: check the caption column."

    def _lost(self, losses: Losses) -> dict:
        """Counts of what was dropped; nothing where nothing was, as in the published sets."""
        found = {
            "letters": self._letters if self._letters != "ascii" else "",
            "captions_without_word": len(losses.wordless),
            "dropped_characters": losses.dropped.total(),
        }
        return {name: value for name, value in found.items() if value}


def _dual_encoding_pp(counts: Counter[str], options: BaseModel) -> Made:
    made = vocab.build(counts, options.min_count, options.size)
    return made, {vocab.FILE: json.dumps(made.ids, indent=2)}


def _hybrid_space(counts: Counter[str], options: BaseModel) -> Made:
    """Write both vocabularies as JSON; the published files are pickles of the same entries."""
    made = vocab.build_hybrid(counts, "rnn", options.min_count)
    bag = vocab.build_hybrid(counts, "bow", options.min_count)
    counter = vocab.counter_text(counts, options.min_count)
    texts = {
        vocab.FILE: json.dumps(made.ids, indent=2),
        vocab.BAG_FILE: json.dumps(bag.ids, indent=2),
    }
    return made, texts | {f"word_vocab_counter_{options.min_count}.txt": counter}


_FORMS: dict[str, Callable[[Counter[str], BaseModel], Made]] = {
    "dual_encoding_pp": _dual_encoding_pp,
    "hybrid_space": _hybrid_space,
}


def _facts(captions: list, counts: Counter[str], made: vocab.Vocabulary) -> dict:
    known = sum(n for word, n in counts.items() if word in made.ids)
    return {
        "captions": len(captions),
        "words": counts.total(),
        "distinct_words": len(counts),
        "vocabulary": len(made),
        "unknown_share": round(1 - known / counts.total(), 5),
    }
