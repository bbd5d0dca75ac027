"""Find the tags of every video in its captions.

    python cli.py tags --in captions.txt --out tags

Tags are nouns, verbs and adjectives in their base forms, with counts. NLTK's tagger is used if its
data are on this machine, else the one that comes with the toolkit; the manifest says which. Base
forms always follow NLTK 3.8, which made the published files.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from pipeline import log
from pipeline.core.files import atomic_write, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import Record, digest
from pipeline.datasets import base
from pipeline.errors import DataError
from pipeline.text import assets, morphy, tag_files
from pipeline.text.tagger import Choice, TaggerSource, find
from pipeline.text.tags import Reader, TagCounts
from pipeline.text.words import Losses


class Stage(Base):
    needs: ClassVar[dict[str, Need]] = {"annotations": Need("annotations")}
    makes: ClassVar[str] = "tags"

    class Options(BaseModel, extra="forbid"):
        size: int = Field(512, ge=1, description="largest number of tags in the vocabulary")
        vocab_min_count: int = Field(
            5, ge=1, description="how often a tag must occur in all captions"
        )
        min_count: int = Field(
            2, ge=1, description="how often a tag must occur in a video's own captions"
        )
        split: str = Field("train", description="split whose captions are read")
        form: Literal["dual_encoding_pp", "hybrid_space"] = Field(
            "dual_encoding_pp",
            description=(
                "which published files to write; hybrid_space also keeps tags outside the"
                " vocabulary, and ignores vocab_min_count"
            ),
        )
        tagger: Choice = Field(
            "auto", description=("auto: nltk if its data are found, else the toolkit's own")
        )
        nltk_data: Path | None = Field(
            None, description="folder of NLTK's data  [$NLTK_DATA, NLTK's usual places]"
        )
        wordnet: Path | None = Field(
            None, description="folder of WordNet files  [the toolkit's tables]"
        )

    def items(self) -> Iterable[Item]:
        yield Item("tags", digest([self.inputs["annotations"].content, self._versions()]))

    def process(self, item: Item) -> Outcome:
        versions = self._versions()
        log.info("tags: made with " + ", ".join(versions.values()), **versions)
        annotations = base.load(self.inputs["annotations"])
        log.once(annotations.said(self.options.split))
        captions = annotations.texts(self.options.split)
        losses = Losses.of((caption.text for caption in captions), "ascii")
        if str(losses):
            log.warning(f"tags are English words of A to Z; split {self.options.split}: {losses}")
        reader = Reader(self._tagger().load(), morphy.load(self.options.wordnet))
        counts = reader.count(captions)
        texts, facts = _FORMS[self.options.form](counts, self.options)
        if not facts["tags"]:
            raise DataError(
                f"no tag of {len(captions):,} captions occurs often enough",
                where=f"split {self.options.split}",
                fix="Lower vocab_min_count and min_count.",
            )
        for name, text in texts.items():
            atomic_write(self.out / name, text)
        facts = {"captions": len(captions), "videos": len(counts.videos)} | facts | versions
        return Outcome(outputs={name: written(self.out / name) for name in texts}, facts=facts)

    def finish(self, records: list[Record]) -> dict:
        return records[0].facts if records else {}

    def _tagger(self) -> TaggerSource:
        return find(self.options.tagger, self.options.nltk_data)

    def _versions(self) -> dict[str, str]:
        """Return what decides the tags besides captions and options."""
        return {
            "tagger": self._tagger().version,
            "lemmatizer": morphy.version(self.options.wordnet),
            "stopwords": assets.version(
                f"stop words {assets.STOP_WORDS.stem}", [assets.STOP_WORDS]
            ),
        }


def _dual_encoding_pp(counts: TagCounts, options: BaseModel) -> tuple[dict[str, str], dict]:
    words, videos = tag_files.annotate(
        counts, options.size, options.vocab_min_count, options.min_count
    )
    return tag_files.files(words, videos), _facts(words, videos)


def _hybrid_space(counts: TagCounts, options: BaseModel) -> tuple[dict[str, str], dict]:
    words, videos = tag_files.annotate_hybrid(counts, options.size, options.min_count)
    return tag_files.hybrid_files(words, videos, options.size, options.min_count), _facts(
        words, videos
    )


def _facts(words: list[str], videos: tag_files.Annotation) -> dict:
    return {"tags": len(words), "videos_without_tags": sum(not tags for tags in videos.values())}


_FORMS: dict[str, Callable[[TagCounts, BaseModel], tuple[dict[str, str], dict]]] = {
    "dual_encoding_pp": _dual_encoding_pp,
    "hybrid_space": _hybrid_space,
}
