"""Rank a split with each checkpoint, in both directions.

    python cli.py evaluate --in data/work/demo/train@dual --tensors data/work/demo/tensors \\
        --annotations demo --out results

It writes metrics.json, ranks.npz, gallery.json, encodings.npz per checkpoint.

Source: pipeline/evaluation/results.py describes these files.
"""

import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import log
from pipeline.core import stage
from pipeline.core.artefact import Artefact
from pipeline.core.files import disk_name, file_digest, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import Record, digest
from pipeline.datasets import base as datasets
from pipeline.errors import ConfigError, DataError, ItemError
from pipeline.evaluation.options import Options

if TYPE_CHECKING:
    import torch

    from pipeline.evaluation.generation import Reranker
    from pipeline.evaluation.inputs import EvaluatedSplit, Opened
    from pipeline.evaluation.kept import KeptEncodings
    from pipeline.evaluation.retrieve import Encoded, RankSettings
    from pipeline.feeding.corpus import Corpus
    from pipeline.processes import World


_MISSING = "videos_left_out"  # [how many, of how many]
_TIMEOUT_MINUTES = 60  # how long processes wait for each other


class Stage(stage.Stage):
    needs = {
        "checkpoints": Need("checkpoint", many=True, help="best.pt, or a step's --out"),
        "tensors": Need(
            "tensors", optional=True, help=("tensor cache of frames or features: the fastest")
        ),
        "features": Need("features", optional=True, help="frame features (BigFile)"),
        "store": Need("frame_store", optional=True, help="frame store (LMDB)"),
        "videos": Need(
            "video_files", optional=True, auto=False, help=("video files to decode: the slowest")
        ),
        "annotations": Need("annotations", help="a data set, a file, or a step's --out"),
        "denoiser": Need(
            "checkpoint",
            optional=True,
            auto=False,
            help=("DiffusionRet checkpoint for rerank diffusion"),
        ),
    }
    makes = "results"
    runs = "inline"
    Options = Options
    indifferent = frozenset({"batch_size", "memory_mb", "device", "loader_threads", "speed_passes"})
    ranks = "all"

    @classmethod
    def mistakes(cls, options: Options, given: dict[str, list[str]] | None) -> list[str]:
        """A denoiser is given if, and only if, rerank asks for one; a bank is of another
        split.
        """
        found = []
        if "qbnorm" in options.rerank and options.bank.split == options.split:
            found.append(
                f"bank.split: {options.split!r} is the split that is ranked.\n    Name another"
                " split, or leave qbnorm out of rerank."
            )
        if given is not None:
            try:
                _check(options, bool(given.get("denoiser")))
            except ConfigError as error:
                found.append(str(error))
        return found

    @classmethod
    def told(cls, out: Path, summary: dict) -> str:
        """Return the table of all checkpoints."""
        from pipeline.evaluation.results import table

        return table(out)

    def items(self) -> list[Item]:
        """Return one item per checkpoint, named after its step."""
        _check(self.options, self.inputs.get("denoiser") is not None)
        shared = {n: a.content for n, a in self.inputs.items() if isinstance(a, Artefact)}
        checkpoints = self.inputs["checkpoints"]
        return [
            Item(name, digest([shared, made.content]), made.path, str(made.path))
            for name, made in zip(_names(checkpoints), checkpoints, strict=True)
        ]

    def process(self, item: Item) -> Outcome:
        """Evaluate one checkpoint. If there are several, one that cannot be used is set aside."""
        try:
            return _evaluate(self, item)
        except DataError as error:
            if len(self.inputs["checkpoints"]) == 1:
                raise
            reason = "not_finite" if "NaN" in error.what else "bad_value"
            raise ItemError(reason, str(error)) from error

    def finish(self, records: list[Record]) -> dict:
        from pipeline.evaluation.kept import forget_others

        forget_others(self.out, [record.id for record in records])
        return {record.id: record.facts for record in records}

    def left_out(self, manifest: dict) -> tuple[int, int]:
        """Videos of the split that could not be ranked, of how many."""
        found = [facts[_MISSING] for facts in manifest["summary"].values() if _MISSING in facts]
        return tuple(max(found)) if found else (0, 0)


def _names(checkpoints: list[Artefact]) -> list[str]:
    names = [
        made.step or (made.path.stem if made.path.is_file() else made.path.name)
        for made in checkpoints
    ]
    seen = Counter(names)
    return [
        n if seen[n] == 1 else f"{made.path.parent.name}-{n}"
        for n, made in zip(names, checkpoints, strict=True)
    ]


def _evaluate(stage: Stage, item: Item) -> Outcome:
    from pipeline import processes
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.evaluation import speed
    from pipeline.evaluation.encode import encode_corpus, in_precision
    from pipeline.evaluation.inputs import EvaluatedSplit
    from pipeline.evaluation.retrieve import take_part
    from pipeline.feeding.inputs import choose_device

    options = stage.options
    path = find_checkpoint(item.payload)
    world = processes.World.of_environment()
    device = choose_device(options.device, world.local_rank)
    processes.join(world, device, _TIMEOUT_MINUTES)
    opened = _open(stage, path, device)
    annotations = datasets.load(stage.inputs["annotations"])
    corpus = opened.corpus(annotations, options.split)
    encode = partial(
        encode_corpus, opened.model, corpus, options.batch_size, options.chunk, world=world
    )
    repeated = None
    with in_precision(options.precision, device):
        if options.speed_passes:
            repeated = speed.repeat(opened.model, encode, options.speed_passes, world)
        kept = _kept(stage, item.id, path, opened, corpus)
        encoded = encode(kept=kept)
        split = EvaluatedSplit(item.id, opened, annotations, corpus, encoded)
        second = _second(stage, split, world)
    folder = stage.out / disk_name(item.id)
    settings = _settings(options, split, second, world)
    if not world.is_first:
        take_part(opened.model, encoded, settings)
        return Outcome()
    start = time.perf_counter()
    metrics, ranks, files, statistics = _rank(options, split, folder, settings)
    if repeated or not kept.reused:  # what was read back says nothing about speed
        found = repeated or speed.measure(encoded, device, time.perf_counter() - start)
        speed.save_speed(stage.out, item.id, found)
    if kept.reused:
        done = kept.encoded
        log.info(
            f"{item.id:<20} {done['video']:,} of {len(corpus.video_ids):,} videos and"
            f" {done['text']:,} captions encoded; the rest is kept from the last evaluation"
        )
    if repeated:
        log.info(f"{item.id:<20} {found.words}")
    files += _save(
        folder, path, split, options=options, metrics=metrics, ranks=ranks, statistics=statistics
    )
    outputs = {file.relative_to(stage.out).as_posix(): written(file) for file in sorted(files)}
    facts = {name: _key_figures(m) for name, m in metrics["results"].items()}
    wanted = len(split.annotations.split(options.split).video_ids)
    missing = wanted - len(split.corpus.video_ids)
    return Outcome(
        outputs=outputs, facts=facts | ({_MISSING: [missing, wanted]} if missing else {})
    )


def _save(
    folder: Path,
    checkpoint: Path,
    split: "EvaluatedSplit",
    options: Options,
    metrics: dict,
    ranks: dict[str, np.ndarray],
    statistics: dict[str, float],
) -> list[Path]:
    """Write what an evaluation found, what it ranked and its encodings; return the files."""
    from pipeline.evaluation import results

    encoded, captions = split.encoded, split.captions
    _, first = np.unique(encoded.row_of_text, return_index=True)  # rows count by first appearance
    gallery = results.Gallery(
        checkpoint=file_digest(checkpoint),
        split=options.split,
        video_ids=split.corpus.video_ids,
        caption_ids=split.corpus.caption_ids,
        texts=[captions[n].text for n in first],
        row_of_text=encoded.row_of_text,
        text_keys=encoded.text_keys.tolist(),
        statistics=statistics,
    )
    files = results.save(folder, metrics, ranks, gallery, encoded.vectors)
    tags = split.opened.info.facts.get("tags")
    if tags and "concept" in encoded.video:
        concepts = encoded.vectors["video"]["concept"]
        files.append(results.save_concepts(folder, split.corpus.video_ids, concepts, tags))
    return files


def _kept(
    stage: Stage, name: str, path: Path, opened: "Opened", corpus: "Corpus"
) -> "KeptEncodings":
    """Return what an earlier evaluation of this checkpoint encoded, as far as it holds today."""
    import torch

    from pipeline.evaluation.kept import KeptEncodings, folder_of, video_keys
    from pipeline.feeding.inputs import Given

    device = next(opened.model.parameters()).device.type
    base = [file_digest(path), stage.options.precision, device, torch.__version__, Stage.version]
    base += stage.options.set
    given = Given.of(stage.inputs, stage.out)
    frames = opened.info.recipe.train.frames
    of_video = video_keys(opened.store, given, corpus.video_ids, frames)
    return KeptEncodings(folder_of(stage.out, name), digest(base).encode(), of_video)


def _open(stage: Stage, path: Path, device: "torch.device") -> "Opened":
    """Return a checkpoint, set up to sample as the options say."""
    from pipeline.evaluation.generation import configure
    from pipeline.evaluation.inputs import open_model
    from pipeline.feeding.inputs import Given

    opened = open_model(
        path,
        device,
        Given.of(stage.inputs, stage.out),
        stage.options.loader_threads,
        stage.options.set,
    )
    if opened.model.second_stage is not None:
        configure(opened.model.second_stage, stage.options.sampling.changes, "evaluate.sampling")
    return opened


def _settings(
    options: Options, split: "EvaluatedSplit", second: "Reranker | None", world: "World"
) -> "RankSettings":
    from pipeline.evaluation.retrieve import RankSettings

    return RankSettings(
        tuple(options.rerank),
        options.ties or split.opened.info.recipe.train.evaluation.ties or "pessimistic",
        options.v2t,
        options.t2v_median,
        dsl_scale=options.dsl_scale,
        bank=_bank(options, split) if "qbnorm" in options.rerank and world.is_first else None,
        world=world,
        beta=options.bank.beta,
        k=options.bank.k,
        theta=options.bank.theta,
        budget=options.memory_mb << 20,
        seed=options.sampling.seed,
        second=second,
    )


def _check(options: Options, is_given: bool) -> None:
    """Raise ConfigError unless a denoiser is given if, and only if, one is asked for."""
    is_wanted = "diffusion" in options.rerank
    if is_wanted and not is_given:
        raise ConfigError(
            "rerank names diffusion, but no denoiser is given",
            where="evaluate.rerank",
            fix=(
                "Add `denoiser: train@...` to the step, or give --denoiser CHECKPOINT: a"
                " DiffusionRet of stage generation."
            ),
        )
    if is_given and not is_wanted:
        raise ConfigError(
            "a denoiser is given, but nothing is re-ranked by it",
            where="evaluate.denoiser",
            fix="Add diffusion to rerank.",
        )


def _second(stage: Stage, split: "EvaluatedSplit", world: "World") -> "Reranker | None":
    """Return what rerank diffusion needs of the denoiser, if it is asked for."""
    if "diffusion" not in stage.options.rerank:
        return None
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.evaluation.denoiser import open_reranker

    options, path = stage.options, find_checkpoint(stage.inputs["denoiser"].path)
    opened = _open(stage, path, next(split.opened.model.parameters()).device)
    return open_reranker(
        path,
        opened,
        first=split,
        split=options.split,
        features=options.sampling.features,
        batch_size=options.batch_size,
        world=world,
    )


def _rank(
    options: Options, split: "EvaluatedSplit", folder: Path, settings: "RankSettings"
) -> tuple[dict, dict[str, np.ndarray], list[Path], dict[str, float]]:
    """metrics.json, the arrays of ranks.npz, the files of score matrices, if wanted, and what
    fusing a query alone needs of all scores.
    """
    from pipeline.evaluation import intervals, results
    from pipeline.evaluation.metrics import average_precisions
    from pipeline.evaluation.retrieve import rank_split
    from pipeline.report import breakdown

    corpus, target = split.corpus, split.corpus.video_of
    metrics, ranks, files = _head(options, split), {"target": target}, []
    statistics: dict[str, float] = {}
    attributes = [split.annotations.videos[i].attributes for i in corpus.video_ids]
    for result in rank_split(split.opened.model, split.encoded, target, settings):
        for side, value in average_precisions(result.evaluation, result.v2t, target).items():
            result.metrics[side]["mAP"] = value
        result.metrics["intervals"] = intervals.of_evaluation(result.evaluation, target)
        metrics["results"][result.rerank] = result.metrics
        metrics["attributes"][result.rerank] = breakdown.attribute_rates(
            result.t2v, target, attributes
        )
        if "examples" not in metrics:
            texts = [(caption.id, caption.text) for caption in split.captions]
            metrics["examples"] = breakdown.examples(
                result, target, texts, corpus.video_ids, options.examples
            )
        ranks |= results.rank_arrays(result.rerank, result.evaluation)
        if options.save_similarity:
            files += results.save_similarity(folder, result.rerank, result.t2v, result.v2t)
        statistics = dict(result.statistics)
        _say(split.name, result.metrics)
    metrics["gains"] = breakdown.gains(metrics["results"])
    _say_gains(split.name, metrics["gains"])
    _say_trained(split.name, metrics["parameters"])
    return metrics, ranks, files, statistics


def _head(options: Options, split: "EvaluatedSplit") -> dict:
    from pipeline.evaluation.metrics import KS
    from pipeline.recipes.freeze import count_parameters
    from pipeline.report import breakdown

    corpus = split.corpus
    info = split.opened.info
    second = split.opened.model.second_stage
    return {
        "checkpoint": split.name,
        "model": info.recipe.model,
        "recipe": info.recipe.name,
        "training": info.training,
        "parameters": count_parameters(split.opened.model, info.recipe.train),
        "split": options.split,
        "texts": len(corpus.caption_ids),
        "videos": len(corpus.video_ids),
        "of": {
            "videos": len(split.annotations.videos),
            "texts": len(split.annotations.captions),
            "splits": split.annotations.origin,
        },
        "left_out": len(split.annotations.split(options.split).video_ids) - len(corpus.video_ids),
        "chance": breakdown.chance(corpus.video_of, len(corpus.video_ids), KS, options.v2t),
        "sampling": (
            None if second is None else {"seed": options.sampling.seed} | asdict(second.settings)
        ),
        "results": {},
        "attributes": {},
    } | ({"set": options.set} if options.set else {})


def _bank(options: Options, split: "EvaluatedSplit") -> "Encoded":
    """Captions and videos of another split, evenly spaced, encoded."""
    from pipeline.evaluation.encode import encode_bank, in_precision

    bank = options.bank
    if bank.split not in split.annotations.splits or bank.split == options.split:
        raise ConfigError(
            f"the query bank of qbnorm cannot come from split {bank.split!r}: there are "
            f"{', '.join(split.annotations.splits)}, and {options.split} is ranked",
            where="evaluate.bank.split",
            fix="Name another split, or leave qbnorm out of rerank.",
        )
    opened, wanted = split.opened, split.annotations.split(bank.split).video_ids
    faults = opened.store.faults(wanted)
    video_ids = [i for i in wanted if i not in faults]
    texts = [caption.text for caption in split.annotations.texts(bank.split)]
    with in_precision(options.precision, next(opened.model.parameters()).device):
        return encode_bank(
            opened.model,
            opened.info,
            texts=texts,
            video_ids=video_ids,
            store=opened.store,
            size=bank.size,
            batch_size=options.batch_size,
        )


def _key_figures(metrics: dict) -> dict[str, float]:
    figures = {
        f"{side}_R{k}": metrics[side][f"R{k}"] for side in ("t2v", "v2t") for k in (1, 5, 10)
    }
    return {name: round(value, 4) for name, value in figures.items()} | {
        "Rsum": round(metrics["Rsum"], 4)
    }


def _say_trained(name: str, parameters: dict[str, int]) -> None:
    """One line for a model of which only a part was trained."""
    everything, trained = parameters["all"], parameters["trained"]
    if trained < everything:
        log.info(
            f"{name:<20} {trained:,} of {everything:,} parameters trained"
            f" ({100 * trained / everything:.3f} %)"
        )


def _say_gains(name: str, gains: dict[str, dict]) -> None:
    """One line for each way of ranking that samples."""
    from pipeline.evaluation.results import gain_words

    for gain in gains.values():
        log.info(f"{name:<20} {gain_words(gain)}")


def _say(name: str, metrics: dict) -> None:
    """One line each way."""
    label = name if metrics["rerank"] == "none" else f"{name} + {metrics['rerank']}"
    for side, words in (("t2v", "text -> video"), ("v2t", "video -> text")):
        m = metrics[side]
        recalls = "   ".join(f"R@{k:<2} {m[f'R{k}']:5.1f}" for k in (1, 5, 10))
        log.info(
            f"{label:<20} {words}   {recalls}   MdR {m['MdR']:g}   MnR {m['MnR']:.1f}   ({m['n']:,}"
            " queries)"
        )
