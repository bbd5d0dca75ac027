"""From a recipe and the artefacts it is given to everything a training needs: model, batches,
validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.base import Mismatch, RetrievalModel
from pipeline import log
from pipeline.core.artefact import Artefact
from pipeline.datasets import base as datasets
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.corpus import Corpus, VideoStore, open_corpus
from pipeline.feeding.inputs import Given, load_vectors, open_store, open_videos
from pipeline.feeding.loader import TrainBatches
from pipeline.processes import World
from pipeline.recipes.recipe import Recipe
from pipeline.text import tag_files, vocab
from pipeline.text.encoder import TextEncoder
from pipeline.text.vocab import Vocabulary
from pipeline.training import starting


@dataclass(frozen=True)
class Setup:
    """What a recipe becomes with these inputs. Everything is opened when it is first asked for.

    inputs: the artefacts of the train stage by need. out: its folder. threads: that read frames.
    """

    recipe: Recipe
    inputs: Mapping[str, Artefact | None]
    out: Path
    world: World = World()
    threads: int | None = None

    @cached_property
    def annotations(self) -> datasets.Annotations:
        return datasets.load(self.inputs["annotations"])

    @cached_property
    def words(self) -> Vocabulary | None:
        """The vocabulary of the word embedding."""
        path = self._path("vocab") if "words" in self.recipe.reads else None
        return vocab.load(path) if path else None

    @cached_property
    def bag(self) -> Vocabulary | None:
        """That of bags of words, where it is another one."""
        return (
            vocab.load_bag(self._path("vocab"), self.words)
            if self.words and "bag" in self.recipe.reads
            else None
        )

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Both in one: what captions are encoded with."""
        return vocab.joined(self.words, self.bag) if self.words else None

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns captions into the tokens that the model reads."""
        inputs, clean = self.model.inputs, self.recipe.train.clean_captions
        return TextEncoder(inputs.text, inputs.tokens, self.vocabulary, clean)

    @cached_property
    def tags(self) -> tag_files.TagLabels | None:
        path = self._path("tags") if "tags" in self.recipe.reads else None
        return tag_files.load(path) if path else None

    @cached_property
    def vectors(self) -> np.ndarray | None:
        """First values of the word embedding, float32 (words, dim)."""
        path = self._path("word_vectors") if "words" in self.recipe.reads else None
        return load_vectors(path) if path else None

    @cached_property
    def facts(self) -> dict:
        """What the model is built from besides its recipe; kept in best.pt."""
        dim = 0
        if "features" in self.recipe.reads:
            dim = int(open_store(self._path("tensors"), self._path("features")).dim)
        return {
            "feature_dim": dim,
            "vocabulary": dict(self.words.ids) if self.words else {},
            **({"bag": dict(self.bag.ids)} if self.bag else {}),
            "tags": list(self.tags.words) if self.tags else [],
            "word_dim": None if self.vectors is None else int(self.vectors.shape[1]),
            "inputs": {
                name: made.content for name, made in self.inputs.items() if made is not None
            },
        }

    @cached_property
    def model(self) -> RetrievalModel:
        """On the CPU, in training mode, with its first values or those of `init`."""
        recipe = self.recipe
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.train.seed)
                model = starting.build(recipe, self.facts, self._path("init"), self.vectors)
        except Mismatch as error:
            raise DataError(
                error.what, where=f"train: recipe {recipe.name}", fix=error.fix
            ) from error
        model.gather_rule = recipe.train.distributed.gather
        return model

    @cached_property
    def store(self) -> VideoStore:
        given = Given.of(self.inputs, self.out)
        train = self.recipe.train
        return open_videos(
            self.model.inputs, given, train.frames, seed=train.seed, threads=self.threads
        )

    def corpus(self, split: str, with_tags: bool = False) -> Corpus:
        """Return a split as the model reads it."""
        texts = [caption.text for caption in self.annotations.texts(split)]
        if lost := self.text_encoder.lost(texts):
            log.warning(f"{split}: captions split into words for the model: {lost}")
        if what := self.text_encoder.mostly_unknown(texts):
            raise DataError(
                what,
                where=self._path("vocab"),
                fix="Make the vocabulary from these captions (vocab step); is its min_count too"
                " high for so few of them?",
            )
        labels = self.tags.matrix if with_tags and self.tags else None
        return open_corpus(self.annotations, split, self.store, self.text_encoder, labels)

    def batches(self, pinned: bool = False) -> TrainBatches:
        """Return the training batches; this process's share of each. ConfigError if the model needs
        larger ones.
        """
        options = self.recipe.train
        made = TrainBatches(
            self.corpus("train", self.model.inputs.tags),
            options.batch_size * (self.world.size if options.batch_scope == "per_process" else 1),
            seed=options.seed,
            drop_last=options.drop_last,
            distinct_videos=options.distinct_videos,
            pairs_together=options.pairs_together,
            world=self.world,
            pinned=pinned,
        )
        try:
            self.model.check_batch(made.smallest)
        except Mismatch as error:
            key = "batch_size" if made.smallest == made.batch_size else "drop_last: false"
            raise ConfigError(error.what, where=f"train.{key}", fix=error.fix) from error
        return made

    def selection(self) -> Corpus | None:
        """Return the split that picks the best weights; None to keep the last ones."""
        split = self.recipe.train.selection_split
        if split == "none":
            return None
        if split not in self.annotations.splits:
            there = ", ".join(self.annotations.splits)
            raise ConfigError(
                f"there is no split {split!r} to select the best weights by, only {there}",
                where="train.selection_split",
                fix="Name another one, or none to keep the last weights.",
            )
        return self.corpus(split)

    def advise(self) -> None:
        """Say what the recipe asks for that a reader of its results should know."""
        options, name = self.recipe.train, f"recipe {self.recipe.name}"
        if options.selection_split == "test":
            log.warning(
                f"{name}: the best weights are selected on the test split, so its scores there are"
                " optimistic"
            )
        if options.expected_processes not in (None, self.world.size):
            log.warning(
                f"{name}: published with {options.expected_processes} processes, this run has"
                f" {self.world.size}"
            )
        if options.accumulation > 1:
            log.warning(
                f"{name}: {options.accumulation} accumulated batches are not one larger batch for"
                " contrastive losses; train.micro_batch is"
            )

    def _path(self, need: str) -> Path | None:
        made = self.inputs.get(need)
        return made.path if made is not None else None
