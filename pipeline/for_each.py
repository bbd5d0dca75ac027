"""Short entries of pipelines.yaml that stand for many: `for_each` names variables and their values.

    $dataset-$recipe:
      for_each: {dataset: [msvd, vatex], recipe: {centerclip_b32: {words: 32}, centerclip_b16:
        {words: 77}}}
      dataset: $dataset
      steps: {train: {recipe: {extends: $recipe, options: {words: $words}}}, ...}

makes one entry for every combination, the last variable changing fastest. A value may bring further
variables, as `words` here. A text that is just `$name` becomes the value itself, whatever its type;
within a text it is written out (`${name}` where a letter follows). `$$` is a dollar sign.
"""

import re
from collections.abc import Iterator
from itertools import product
from math import prod

from pipeline.registry import suggest

KEY = "for_each"
_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")
_MOST_VALUES = 100_000  # that one entry may stand for


def expand(entries: dict[str, dict], where: str, faults: list[str]) -> dict[str, dict]:
    """Return the entries with every `for_each` worked out, in order. Mistakes are added to
    `faults`, each with its path.
    """
    made: dict[str, dict] = {}
    for name, entry in entries.items():
        found = (
            {name: entry}
            if KEY not in entry
            else _worked_out(name, entry, f"{where}.{name}", faults)
        )
        faults += [
            f"{where}.{name}: makes {again} a second time." for again in found if again in made
        ]
        made |= found
    return made


def _worked_out(name: str, entry: dict, where: str, faults: list[str]) -> dict[str, dict]:
    choices = _choices(entry[KEY], f"{where}.{KEY}", faults)
    rest = {key: value for key, value in entry.items() if key != KEY}
    count = prod(len(values) for values in choices.values())
    if count * _size(rest) > _MOST_VALUES:
        faults.append(f"{where}: stands for {count:,} entries, more than {_MOST_VALUES:,} values.")
        return {}
    made: dict[str, dict] = {}
    mistakes: dict[str, None] = {}
    for variables in _combinations(choices):
        unknown: dict[str, None] = {}
        full = str(_filled(name, variables, unknown))
        if full in made:
            mistakes[
                f"{where}: makes {full} twice; its name must hold every variable of {KEY}."
            ] = None
        made[full] = _filled(rest, variables, unknown)
        for word in unknown:
            mistakes[
                f"{where}: there is no variable ${word}. {suggest(word, sorted(variables))}"
            ] = None
    faults += mistakes
    return made


def _choices(value: object, where: str, faults: list[str]) -> dict[str, dict[str, dict]]:
    """Return {variable: {value: further variables}}, checked; {} if anything is wrong."""
    before = len(faults)
    if not isinstance(value, dict) or not value:
        faults.append(f"{where}: must be a mapping {{variable: [value, ...]}}, got {value!r:.60}.")
        return {}
    choices: dict[str, dict[str, dict]] = {}
    for name, values in value.items():
        if isinstance(values, list) and all(isinstance(v, str | int | float) for v in values):
            values = dict.fromkeys(values) if len(set(values)) == len(values) else None
        if not isinstance(values, dict) or not all(
            isinstance(v, dict | None) for v in values.values()
        ):
            faults.append(
                f"{where}.{name}: must list different values, or map each to further variables."
            )
            continue
        choices[name] = {v: more or {} for v, more in values.items()}
    return choices if len(faults) == before else {}


def _size(value: object) -> int:
    """Return how many values an entry holds."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, inner))


def _combinations(choices: dict[str, dict[str, dict]]) -> Iterator[dict[str, object]]:
    if not choices:
        return
    for values in product(*choices.values()):
        variables: dict[str, object] = {}
        for name, value in zip(choices, values, strict=True):
            variables |= choices[name][value] | {name: value}
        yield variables


def _filled(value: object, variables: dict[str, object], unknown: dict[str, None]) -> object:
    """`value` with variables filled in, in keys too; names of unknown ones are added to
    `unknown`.
    """
    if isinstance(value, dict):
        return {
            _filled(k, variables, unknown): _filled(v, variables, unknown) for k, v in value.items()
        }
    if isinstance(value, list):
        return [_filled(v, variables, unknown) for v in value]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    if whole and not whole[1] and (whole[2] or whole[3]) in variables:
        return variables[whole[2] or whole[3]]

    def fill(match: re.Match) -> str:
        name = match[2] or match[3]
        if match[1]:
            return "$"
        if name not in variables:
            unknown[name] = None
        return str(variables.get(name, match[0]))

    return _VARIABLE.sub(fill, value)
