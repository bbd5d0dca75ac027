"""Make `data/tagger`: how the shipped part-of-speech tagger came about. Run it only to remake it.

    python -m tools.train_tagger ../shared/data

Captions (ActivityNet Captions train, DiDeMo val and test: 45,622 sentences) are tagged with NLTK's
tagger; an averaged perceptron with the same kinds of features learns these tags from nothing, and
its larger weights are kept, rounded to halves. No number of NLTK's data enters the file, and no
caption does: only how often words of captions got which tag. Agreement with NLTK's tagger on
captions it never saw is printed; `data/README.md` records it.
"""

import csv
import gzip
import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

from pipeline.text import morphy, tagger
from pipeline.text.assets import stop_words
from pipeline.text.perceptron import START, Perceptron, context_words, features
from pipeline.text.words import tokens

EPOCHS = 5
SCALE, SMALLEST = 2, 1.0  # weights are stored as round(2 w) where |w| >= 1
KNOWN_COUNT, KNOWN_SHARE = 5, 0.995  # a word with one tag in so many cases is not looked at again
Tagged = list[tuple[list[str], list[str]]]


def main(data: Path, target: Path = tagger.SHIPPED) -> None:
    teacher = tagger.find("nltk", data / "nltk").load()
    sentences = _tagged(_training_captions(data / "annotations"), teacher)
    known = _known_words(sentences)
    weights = _rounded(
        Trainer(known, sorted({tag for _, tags in sentences for tag in tags})).train(sentences)
    )
    labels = sorted({tag for _, tags in sentences for tag in tags})
    about = (
        "averaged perceptron trained by tools/train_tagger.py of this project; weights are halves"
    )
    body = {
        "about": about,
        "classes": labels,
        "tagdict": dict(sorted(known.items())),
        "weights": weights,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(
        gzip.compress(json.dumps(body, separators=(",", ":")).encode(), compresslevel=9, mtime=0)
    )
    print(
        f"{target}: {target.stat().st_size:,} bytes, {len(weights):,} features, {len(known):,}"
        " known words"
    )
    student = Perceptron(weights, known, labels)
    for name, captions in _held_out(data / "annotations").items():
        print(name, _agreement(_tagged(captions, teacher), student))


class Trainer:
    """The perceptron rule: where the guess is wrong, raise the weights of the right tag, lower
    those of the guess.
    """

    def __init__(self, known: dict[str, str], labels: list[str]):
        self._known, self._labels = known, labels
        self._weights: dict[str, dict[str, float]] = defaultdict(dict)
        self._sums: dict[tuple[str, str], float] = defaultdict(
            float
        )  # of a weight over all steps, for the average
        self._changed: dict[tuple[str, str], int] = defaultdict(int)
        self._step = 0

    def train(self, sentences: Tagged) -> dict[str, dict[str, float]]:
        """The averaged weights after EPOCHS passes in seeded random order."""
        sentences, order = list(sentences), random.Random(0)
        for epoch in range(EPOCHS):
            order.shuffle(sentences)
            wrong = sum(self._learn(*sentence) for sentence in sentences)
            print(
                f"epoch {epoch + 1}: {wrong:,} of {sum(len(t) for t, _ in sentences):,} tags wrong"
            )
        return {
            feature: {
                label: self._sum(feature, label, weight) / self._step
                for label, weight in row.items()
            }
            for feature, row in self._weights.items()
        }

    def _learn(self, words: list[str], tags: list[str]) -> int:
        around, (previous, before), wrong = context_words(words), START, 0
        for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
            guess = self._known.get(word)
            if not guess:
                self._step += 1
                names = features(word, previous, before, *around[i : i + 5])
                guess = self._guess(names)
                if guess != tag:
                    wrong += 1
                    for name in names:
                        self._change(name, tag, 1.0)
                        self._change(name, guess, -1.0)
            before, previous = previous, guess
        return wrong

    def _guess(self, names: tuple[str, ...]) -> str:
        scores: dict[str, float] = defaultdict(float)
        for name in names:
            for label, weight in self._weights.get(name, {}).items():
                scores[label] += weight
        return max(self._labels, key=lambda label: (scores.get(label, 0.0), label))

    def _change(self, feature: str, label: str, change: float) -> None:
        weight = self._weights[feature].get(label, 0.0)
        self._sums[feature, label] = self._sum(feature, label, weight)
        self._changed[feature, label] = self._step
        self._weights[feature][label] = weight + change

    def _sum(self, feature: str, label: str, weight: float) -> float:
        key = (feature, label)
        return self._sums[key] + (self._step - self._changed[key]) * weight


def _rounded(weights: dict[str, dict[str, float]]) -> dict[str, dict[str, int]]:
    kept = {}
    for feature, row in sorted(weights.items()):
        large = {
            label: round(weight * SCALE)
            for label, weight in sorted(row.items())
            if abs(weight) >= SMALLEST
        }
        if large:
            kept[feature] = large
    return kept


def _known_words(sentences: Tagged) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in sentences:
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    best = {word: (*count.most_common(1)[0], count.total()) for word, count in counts.items()}
    return {
        word: tag
        for word, (tag, n, total) in best.items()
        if total >= KNOWN_COUNT and n / total >= KNOWN_SHARE
    }


def _tagged(captions: list[str], by: Perceptron) -> Tagged:
    return [(words, by.tag(words)) for words in map(tokens, captions) if words]


def _training_captions(annotations: Path) -> list[str]:
    didemo = [
        json.loads((annotations / "didemo" / f"{split}_data.json").read_text())
        for split in ("val", "test")
    ]
    return _activitynet(annotations, "train") + [
        row["description"] for rows in didemo for row in rows
    ]


def _held_out(annotations: Path) -> dict[str, list[str]]:
    with (annotations / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        msrvtt = [row["sentence"] for row in csv.DictReader(file)]
    return {"ActivityNet val_1": _activitynet(annotations, "val_1"), "MSR-VTT 1k-A test": msrvtt}


def _activitynet(annotations: Path, split: str) -> list[str]:
    videos = json.loads((annotations / "activitynet" / f"{split}.json").read_text())
    return [sentence for video in videos.values() for sentence in video["sentences"]]


def _agreement(truth: Tagged, student: Perceptron) -> str:
    """Per caption: shared / all kept lemmas (multisets), averaged; overlap of the 512 most frequent
    lemmas.
    """
    shares, totals = [], (Counter(), Counter())
    wordnet = morphy.load()
    for words, tags in truth:
        a, b = (Counter(_kept(words, t, wordnet)) for t in (tags, student.tag(words)))
        shares.append((a & b).total() / max(1, (a | b).total()) if a or b else 1.0)
        totals[0].update(a)
        totals[1].update(b)
    top = [{lemma for lemma, _ in total.most_common(512)} for total in totals]
    return (
        f"lemma overlap {sum(shares) / len(shares):.4f}, top 512 overlap"
        f" {len(top[0] & top[1]) / 512:.4f}"
    )


def _kept(words: list[str], tags: list[str], wordnet: morphy.Morphy) -> list[str]:
    classes = {"J": "a", "V": "v", "N": "n"}
    pairs = ((word, classes.get(tag[0])) for word, tag in zip(words, tags, strict=True))
    lemmas = [wordnet.lemma(word, pos) for word, pos in pairs if pos]
    return [lemma for lemma in lemmas if lemma not in stop_words()]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
