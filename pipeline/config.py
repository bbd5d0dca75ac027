"""pipelines.yaml and the recipes of the models: load them safely, merge `extends`, apply --set;
names that do not exist get a did-you-mean.

Component options are validated where they are used (`registry.options`), so every mistake is named
by its YAML path.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline import for_each, registry
from pipeline.errors import ConfigError

SHIPPED = registry.ROOT / "pipelines.yaml"
_SECTIONS = ("datasets", "recipes", "pipelines")
WORDS_OF_A_RECIPE = ("about", "published")  # for people; what extends it has its own
_LARGEST_BYTES = 1 << 20
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MOST_NODES = 100_000  # a 300-byte file of nested aliases can stand for billions of nodes


@dataclass(frozen=True)
class Config:
    """The three sections as plain values; a user's file adds to the shipped one and wins where
    names are equal.
    """

    datasets: dict[str, dict]
    recipes: dict[str, dict]
    pipelines: dict[str, dict]

    def dataset(self, name: str) -> dict:
        """Return {"type": ..., <options>} of a dataset."""
        return copy.deepcopy(self._entry("datasets", name))

    def pipeline(self, name: str) -> dict:
        return copy.deepcopy(self._entry("pipelines", name))

    def recipe(self, name: str) -> dict:
        """Return {"name", "model", "options", "train"}: a recipe with all it extends merged in;
        `null` deletes a key.
        """
        return {"name": name} | self._extend({"extends": name}, name)

    def resolve(self, section: str, value: object) -> object:
        """Return what an option like `recipe: tiny_dual` names; for recipes also `{extends:
        tiny_dual, options: {...}}`.
        """
        if (
            section == "recipes"
            and isinstance(value, dict)
            and isinstance(value.get("extends"), str)
        ):
            return {"name": value["extends"]} | self._extend(value, value["extends"])
        if not isinstance(value, str):
            return value
        return (
            self.recipe(value)
            if section == "recipes"
            else copy.deepcopy(self._entry(section, value))
        )

    def _extend(self, entry: dict, name: str) -> dict:
        """Return a recipe's own entry with all it extends merged in."""
        entry = dict(entry)
        chain, seen = [entry], []
        while current := entry.pop("extends", None):
            if current in seen:
                raise ConfigError(
                    f"extends goes in a circle: {' -> '.join([*seen, current])}",
                    where=f"pipelines.yaml: recipes.{name}",
                    fix="Remove one of these `extends`.",
                )
            seen.append(current)
            entry = copy.deepcopy(self._entry("recipes", current))
            for word in WORDS_OF_A_RECIPE:
                entry.pop(word, None)
            chain.append(entry)
        merged: dict = {}
        for entry in reversed(chain):
            merged = merge(merged, entry)
        return merged

    def _entry(self, section: str, name: str) -> dict:
        name = str(name)
        entries = getattr(self, section)
        if name not in entries:
            raise ConfigError(
                f"there is no {section.rstrip('s')} called {name!r}",
                fix=registry.suggest(name, sorted(entries)),
            )
        return entries[name]


def load(path: Path | None = None) -> Config:
    """Return the shipped configuration, with the user's file (`path`, else ./pipelines.yaml if it
    is another file) over it.
    """
    sections = _read(SHIPPED, is_ours=True)
    for file in registry.recipe_files():
        sections["recipes"] |= _read(file, is_ours=True)["recipes"]
    own = path or Path("pipelines.yaml")
    if path or (own.exists() and own.resolve() != SHIPPED.resolve()):
        for section, entries in _read(own).items():
            sections[section] = sections[section] | entries
    return Config(**sections)


def _read(path: Path, is_ours: bool = False) -> dict[str, dict]:
    """Return the sections of a file.

    is_ours: it came with the toolkit, and tests have looked for keys given twice. The parser in C
    takes a tenth of the time, and might not survive hostile depth.
    """
    text = _text(path)
    value = yaml.load(text, Loader=_Quick) if is_ours else safe_yaml(text, str(path))  # noqa: S506
    faults = []
    if not isinstance(value, dict):
        raise ConfigError(
            "not a mapping with the sections datasets, recipes, pipelines",
            where=path,
            fix="See docs/configuration.md.",
        )
    for section, entries in value.items():
        if section not in _SECTIONS:
            faults.append(
                f"{path}: {section}: unknown section. {registry.suggest(section, list(_SECTIONS))}"
            )
        elif not isinstance(entries, dict):
            faults.append(f"{path}: {section}: must be a mapping of names.")
        else:
            faults += [
                f"{path}: {section}.{name}: must be a mapping, got {entry!r}."
                for name, entry in entries.items()
                if not isinstance(entry, dict)
            ]
    if faults:
        raise ConfigError("\n".join(faults))
    sections = {section: _named(value.get(section) or {}) for section in _SECTIONS}
    for entry in sections["pipelines"].values():
        if isinstance(entry.get("steps"), dict):
            entry["steps"] = _named(entry["steps"])
    sections["pipelines"] = for_each.expand(sections["pipelines"], f"{path}: pipelines", faults)
    _count_nodes(sections["pipelines"], str(path))
    if faults:
        raise ConfigError("\n".join(faults))
    return sections


def _named(entries: dict) -> dict:
    """Entries by name. YAML reads a name like 7 or 1.5 as a number: it is a name all the same."""
    return {str(name): entry for name, entry in entries.items()}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(
                f"larger than {_LARGEST_BYTES:,} bytes",
                where=path,
                fix="Is this a configuration file?",
            )
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(
            "there is no such file", where=path, fix="Give --config the path of a YAML file."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8 text (byte {error.start})", where=path, fix="Save it as UTF-8."
        ) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without dates, which lists the keys that stand in one mapping twice.

    A date is text: no option of ours is one, and folders are often called 2026-11-30.

    repeated: (key, node of the later one, line of the first from 0). Keys that `<<` brings may be
    given again.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag != _TIMESTAMP]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.repeated: list[tuple[str, yaml.Node, int]] = []

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                before = first.setdefault((key.tag, key.value), key)
                if before is not key:
                    self.repeated.append((key.value, key, before.start_mark.line))
        return node


class _Quick(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The same values, for files that came with the toolkit."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _loader in (_Loader, _Quick):
    _loader.add_constructor(_TIMESTAMP, yaml.SafeLoader.construct_yaml_str)
    for _tag in ("set", "omap", "pairs", "binary"):  # no option of ours is one
        _loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_undefined)


def safe_yaml(text: str, where: str) -> object:
    """Parse YAML without executing or exploding; ConfigError with line and column, also for keys
    given twice.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    # what is no YAMLError comes from its constructors: a number of 5,000 digits, `!!int foo`
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or _first_line(error)
        raise ConfigError(
            f"not valid YAML: {problem}", where=place, fix="Correct the file."
        ) from None
    if loader.repeated:
        raise _twice(loader.repeated, where)
    _count_nodes(value, where)
    return value


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0][:160]
    return text if len(text) > 1 and " " in text else f"a value that cannot be ({text or error!r})"


def _twice(repeated: list[tuple[str, yaml.Node, int]], where: str) -> ConfigError:
    """Return the error for keys that stand in one mapping twice."""
    repeated = sorted(repeated, key=lambda found: found[1].start_mark.index)
    examples = [
        f"{key} in line {node.start_mark.line + 1} (first in line {line + 1})"
        for key, node, line in repeated
    ]
    mark = repeated[0][1].start_mark
    return ConfigError(
        f"{len(repeated):,} x key that occurs twice:"
        f" {'; '.join(examples[:3])}{' ...' * (len(examples) > 3)}",
        where=f"{where}:{mark.line + 1}:{mark.column + 1}",
        fix="Only one of them would count: remove the other, or give it another name.",
    )


def _count_nodes(value: object, where: str) -> None:
    pending, count = [value], 0
    while pending:
        node = pending.pop()
        count += 1
        if count > _MOST_NODES:
            raise ConfigError(
                f"stands for more than {_MOST_NODES:,} values (nested aliases?)",
                where=where,
                fix="Write it out plainly.",
            )
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def merge(base: dict, over: dict) -> dict:
    """`over` on top of `base`, mapping by mapping; a null deletes the key."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def assign(target: dict, assignment: str, where: str) -> None:
    """Apply `a.b.c=value` (the value is YAML) to nested mappings. ConfigError if it has no `=`.

    A name on the way (train.recipe is one) becomes an entry that extends it.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(
            f"{assignment!r} is not of the form step.option=value",
            where=where,
            fix="For example: --set compress.fps=1",
        )
    *parents, last = path.split(".")
    for key in parents:
        if not isinstance(target.get(key), dict):
            target[key] = {"extends": target[key]} if isinstance(target.get(key), str) else {}
        target = target[key]
    target[last] = safe_yaml(text, f"{where} {path}")
