"""The averaged perceptron part-of-speech tagger: NLTK's features and rules over a table of weights,
faster than NLTK.

With NLTK's weights the tags are NLTK's to the last one: scores are sums of the same float64 numbers
in the same order, and a tie goes to the label that sorts last. Source of the rules: nltk/nltk:
nltk/tag/perceptron.py; docs/specs/dual-encoding.md, section 10.2.
"""

from collections.abc import Iterable

import numpy as np

START, END = ("-START-", "-START2-"), ("-END-", "-END2-")
# contexts whose tag is kept (about 200 MB at most): captions repeat the same words again and again
_REMEMBERED = 1 << 19


class Perceptron:
    """`tag(tokens)` gives Penn Treebank tags.

    weights: {feature: {label: weight}}, features named as in `features`. known: {word: its tag
    whatever the context}. Raises ValueError if they do not fit together.
    """

    def __init__(
        self, weights: dict[str, dict[str, float]], known: dict[str, str], labels: Iterable[str]
    ):
        self._labels = sorted(
            labels, reverse=True
        )  # argmax finds the first maximum: the label that sorts last
        column = {label: n for n, label in enumerate(self._labels)}
        unknown = {label for row in weights.values() for label in row if label not in column}
        if unknown or not self._labels:
            raise ValueError(
                "weights for labels that are not listed:"
                f" {', '.join(sorted(unknown)[:3]) or 'no labels'}"
            )
        self._known = known
        self._row = {feature: n for n, feature in enumerate(weights)}
        self._weights = np.zeros((len(weights), len(self._labels)))  # float64 (features, labels)
        for n, row in enumerate(weights.values()):
            for label, weight in row.items():
                self._weights[n, column[label]] = weight
        if not np.isfinite(self._weights).all():
            raise ValueError("weights that are not finite numbers")
        self._decided: dict[tuple[str, ...], str] = {}

    def tag(self, tokens: list[str]) -> list[str]:
        """Return the tag of each token of one caption, decided from left to right."""
        if len(self._decided) > _REMEMBERED:
            self._decided.clear()
        words = context_words(tokens)
        previous, before = START
        tags = []
        for i, token in enumerate(tokens):
            tag = self._known.get(token)
            if not tag:
                context = (token, previous, before, *words[i : i + 5])
                tag = self._decided.get(context) or self._decide(context)
            tags.append(tag)
            before, previous = previous, tag
        return tags

    def _decide(self, context: tuple[str, ...]) -> str:
        get = self._row.get
        rows = [row for feature in features(*context) if (row := get(feature)) is not None]
        # along the first axis numpy adds one row after the other: the sums round as NLTK's do
        scores = np.add.reduce(self._weights.take(np.array(rows, dtype=np.intp), axis=0), axis=0)
        tag = self._decided[context] = self._labels[int(scores.argmax())]
        return tag


def context_words(tokens: list[str]) -> list[str]:
    """Return the tokens in normal form with two marks on either side: token i of n sees items i to
    i + 4 of n + 4.
    """
    return [*START, *map(_normalised, tokens), *END]


def features(
    token: str,
    previous: str,
    before: str,
    word_2: str,
    word_1: str,
    word: str,
    next_1: str,
    next_2: str,
) -> tuple[str, ...]:
    """Return the names of a token's features, in the order in which their weights are added.

    previous, before: tags of the last token and of the one before it; the rest: normal forms of the
    five words around.
    """
    return (
        "bias",
        f"i suffix {token[-3:]}",
        f"i pref1 {token[:1]}",
        f"i-1 tag {previous}",
        f"i-2 tag {before}",
        f"i tag+i-2 tag {previous} {before}",
        f"i word {word}",
        f"i-1 tag+i word {previous} {word}",
        f"i-1 word {word_1}",
        f"i-1 suffix {word_1[-3:]}",
        f"i-2 word {word_2}",
        f"i+1 word {next_1}",
        f"i+1 suffix {next_1[-3:]}",
        f"i+2 word {next_2}",
    )


def _normalised(token: str) -> str:
    if "-" in token and token[0] != "-":
        return "!HYPHEN"
    if token.isdigit() and len(token) == 4:
        return "!YEAR"
    return "!DIGITS" if token[:1].isdigit() else token.lower()
