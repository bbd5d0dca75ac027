"""Captions per second of the text stages: vocabulary, tags (both taggers) and caption files, beside
plain stand-ins.

Stand-ins, in the same run: the published scheme for the vocabulary (one regular expression and one
counter update per caption) and, with --nltk FOLDER (NLTK's data: taggers/, corpora/), NLTK's own
tagger for tags (its tagging alone, without lemmas). Captions are generated ones of MSR-VTT's
length; with --annotations FOLDER those of activitynet/train.json and
msrvtt/MSRVTT_JSFUSION_test.csv in it.

Run: OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.data.text      (about 30 s; CPU seconds of one
thread)
"""

import csv
import json
import platform
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from pipeline.core.plan import dataset_artefact
from pipeline.core.runner import run
from pipeline.datasets import caption_files
from pipeline.datasets.base import Caption
from pipeline.stages import tags as tags_stage
from pipeline.stages import vocab as vocab_stage
from pipeline.text import morphy, tagger
from pipeline.text.perceptron import Perceptron
from pipeline.text.tags import Reader
from pipeline.text.vocab import build
from pipeline.text.words import count_words, tokens

ROW = "{:<52} {:>14} {:>12}"


@click.command(help=__doc__)
@click.option("--annotations", type=click.Path(path_type=Path, exists=True))
@click.option("--nltk", type=click.Path(path_type=Path, exists=True))
def main(annotations: Path | None, nltk: Path | None) -> None:
    corpora = _corpora(annotations)
    click.echo(
        f"{_processor()}, Python {platform.python_version()}; CPU seconds, one thread, best of 3"
    )
    for name, texts in corpora.items():
        n_words = sum(len(text.split()) for text in texts) / len(texts)
        click.echo(f"\n{name}: {len(texts):,} captions, {n_words:.1f} words each")
        click.echo(ROW.format("", "captions/s", "target"))
        _row(
            "vocabulary, published scheme", _rate(lambda t=texts: _published_counts(t), len(texts))
        )
        _row(
            "vocabulary, ours (captions in memory)",
            _rate(lambda t=texts: build(count_words(t)), len(texts)),
            200_000,
        )
        _tag_rows(texts[:20_000], nltk)
    _file_rows(next(iter(corpora.values())))


def _tag_rows(texts: list[str], nltk: Path | None) -> None:
    """Tags cost most while every context is new: each measurement starts with an empty memory."""
    captions = [Caption(f"v{n // 5}#{n}", f"v{n // 5}", text) for n, text in enumerate(texts)]
    taggers = {"offline": tagger.find("offline")}
    if nltk is not None:
        taggers["nltk"] = tagger.find("nltk", nltk)
        _row(
            "tags, NLTK's own tagger (tagging alone)",
            _nltk_rate(taggers["nltk"], texts[:2000]),
            2_000,
        )
    for name, source in taggers.items():
        readers = [Reader(source.load(), morphy.load()) for _ in range(3)]
        rate = _rate(lambda r=readers, c=captions: r.pop().count(c), len(captions))
        _row(
            f"tags, ours, {name} tagger (tag, lemmatise, count)",
            rate,
            10_000 if name == "offline" else 2_000,
        )


def _nltk_rate(source: tagger.TaggerSource, texts: list[str]) -> float:
    from nltk.tag.perceptron import PerceptronTagger

    theirs, words = PerceptronTagger(load=False), [tokens(text) for text in texts]
    theirs.model.weights, theirs.tagdict, theirs.model.classes = (
        json.loads(p.read_bytes()) for p in source.files
    )
    ours: Perceptron = source.load()
    assert [[tag for _, tag in theirs.tag(w)] for w in words[:200]] == [
        ours.tag(w) for w in words[:200]
    ]
    return _rate(lambda: [theirs.tag(w) for w in words], len(words))


def _file_rows(texts: list[str]) -> None:
    """The whole steps, from the caption file to the finished folder."""
    click.echo("\nwhole steps, caption file to finished folder")
    click.echo(ROW.format("", "captions/s", "target"))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "captions.txt")
        path.write_text(
            "".join(f"v{n // 20}#{n % 20} {text}\n" for n, text in enumerate(texts)),
            encoding="utf-8",
        )
        annotations = dataset_artefact({"type": "caption_files", "root": str(path)}, "annotations")
        read = caption_files.Dataset(caption_files.Options(root=path))
        _row("caption file read and checked", _rate(read.load, len(texts)))
        for kind, options in ((vocab_stage, {}), (tags_stage, {"tagger": "offline"})):
            outs = [Path(name, kind.__name__, str(n)) for n in range(3)]
            stage = kind.Stage

            def step(stage: type = stage, options: dict = options, outs: list = outs) -> None:
                run(
                    stage(stage.Options(**options), {"annotations": annotations}, outs.pop()),
                    jobs=1,
                )

            _row(f"{kind.__name__.rpartition('.')[2]} step", _rate(step, len(texts)))


def _published_counts(texts: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.sub(r"[^A-Za-z0-9]", " ", text).lower().split())
    return counts


def _rate(work: Callable[[], object], n_captions: int) -> float:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return n_captions / min(seconds)


def _row(name: str, rate: float, target: int | None = None) -> None:
    verdict = "" if target is None else f"{target:,} {'ok' if rate >= target else 'MISSED'}"
    click.echo(ROW.format(name, f"{rate:,.0f}", verdict))


def _corpora(annotations: Path | None) -> dict[str, list[str]]:
    if annotations is None:
        return {"generated": _generated(30_000)}
    videos = json.loads(
        (annotations / "activitynet" / "train.json").read_text(encoding="utf-8")
    ).values()
    with (annotations / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        msrvtt = [row["sentence"] for row in csv.DictReader(file)]
    activitynet = [
        " ".join(sentence.split()) for video in videos for sentence in video["sentences"]
    ]
    return {
        "ActivityNet train": [text for text in activitynet if text],
        "MSR-VTT 1k-A test": msrvtt,
    }


def _generated(count: int) -> list[str]:
    words, choose = sorted(morphy.load().words["n"])[::40], random.Random(0)
    return [" ".join(choose.choices(words, k=choose.randint(5, 13))) for _ in range(count)]


def _processor() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


if __name__ == "__main__":
    main()
