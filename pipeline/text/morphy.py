"""Lemmas by WordNet's morphology, with the rule of NLTK 3.8, which made the published tag files.

NLTK 3.9 and newer stop after one substitution and give other lemmas for a few words (buildings as a
verb), so NLTK itself is not used. Tables: WordNet 3.0, shipped in `data/wordnet`, or a user's
folder of WordNet dictionary files.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.text import assets

SHIPPED = assets.DATA / "wordnet"
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}  # WordNet class -> name of its files
_RULE = "morphy as in NLTK 3.8"
_SUBSTITUTIONS = {
    "n": ["s:", "ses:s", "ves:f", "xes:x", "zes:z", "ches:ch", "shes:sh", "men:man", "ies:y"],
    "v": ["s:", "ies:y", "es:e", "es:", "ed:e", "ed:", "ing:e", "ing:"],
    "a": ["er:", "est:", "er:e", "est:e"],
    "r": [],
}
_RULES = {pos: [tuple(rule.split(":")) for rule in rules] for pos, rules in _SUBSTITUTIONS.items()}


@dataclass(frozen=True)
class Morphy:
    """WordNet's words by class, and the irregular forms of each class: {"n": {"geese": ["goose"],
    ...}, ...}.
    """

    words: dict[str, frozenset[str]]
    exceptions: dict[str, dict[str, list[str]]]

    def lemma(self, word: str, pos: str) -> str:
        """Return the shortest base form of a lower-case word (class n, v, a, r); if several are
        equally short, the first; if it has none, the word itself.
        """
        forms = self.base_forms(word, pos)
        return min(forms, key=len) if forms else word

    def base_forms(self, word: str, pos: str) -> list[str]:
        """Return all base forms that WordNet lists, in the order of its rules; [] if it knows
        none.
        """
        known, rules = self.words[pos], _RULES[pos]
        irregular = self.exceptions.get(pos, {}).get(word)
        if irregular is not None:
            return _listed([word, *irregular], known)
        forms = _shortened([word], rules)
        found = _listed([word, *forms], known)
        while forms and not found:  # a substitution of a substitution: slicess -> slices -> slice
            forms = _shortened(forms, rules)
            found = _listed(forms, known)
        return found


def _listed(forms: list[str], known: frozenset[str]) -> list[str]:
    return [form for form in dict.fromkeys(forms) if form in known]


def _shortened(forms: list[str], rules: list[tuple[str, str]]) -> list[str]:
    # each form once, else a hostile word (sesesese...) would double the work in every round
    return list(
        dict.fromkeys(
            form[: -len(old)] + new for form in forms for old, new in rules if form.endswith(old)
        )
    )


def load(folder: Path | None = None) -> Morphy:
    """WordNet from a folder of its dictionary files (index.noun, noun.exc, ...); None: the tables
    of the toolkit.

    Both give the same lemmas for single words. Raises DataError if a file is missing or holds no
    words.
    """
    if folder is None:
        return _shipped()
    tables = {pos: read_dictionary(folder, name) for pos, name in FILES.items()}
    words = {pos: frozenset(index) for pos, (index, _) in tables.items()}
    return Morphy(words, {pos: irregular for pos, (_, irregular) in tables.items()})


def version(folder: Path | None = None) -> str:
    """Return how manifests name the rule and the tables that `load(folder)` uses. DataError if a
    file is missing.
    """
    if folder is None:
        return assets.version(f"{_RULE}, WordNet 3.0", sorted(SHIPPED.glob("*.txt.gz")))
    names = [form for name in FILES.values() for form in (f"index.{name}", f"{name}.exc")]
    return assets.version(f"{_RULE}, WordNet of the user", [folder / name for name in names])


def _shipped() -> Morphy:
    words = {
        pos: frozenset(assets.read_lines(SHIPPED / f"{name}.txt.gz")) for pos, name in FILES.items()
    }
    exceptions = {
        pos: _irregular(assets.read_lines(SHIPPED / f"{name}.exc.txt.gz"))
        for pos, name in FILES.items()
    }
    return Morphy(words, exceptions)


def read_dictionary(folder: Path, name: str) -> tuple[list[str], dict[str, list[str]]]:
    """Words of `index.<name>` in file order, irregular forms of `<name>.exc`; entries of several
    words are left out.
    """
    # the licence at the head of an index file is indented; entries are not
    index = [
        line.split(" ", 1)[0]
        for line in assets.read_lines(folder / f"index.{name}")
        if line[:1].strip()
    ]
    words = [word for word in index if "_" not in word]
    if not words:
        raise DataError(
            "holds no words",
            where=folder / f"index.{name}",
            fix="Give WordNet's own `dict` folder.",
        )
    return words, _irregular(assets.read_lines(folder / f"{name}.exc"))


def _irregular(lines: list[str]) -> dict[str, list[str]]:
    rows = (line.split() for line in lines)
    return {row[0]: row[1:] for row in rows if row and "_" not in row[0]}
