"""Published checkpoint files into ours and back. What they contain is known to
`models/<model>/published.py` alone.

Such a module says: `recognises(value)`, `import_checkpoint(value) -> (options, assets)`,
`export_file(options, state, training)`, `training_facts(value, side)`, RECIPE, SUFFIX, SIDE_FILE
and IMPLIED, or `implied(options, state)` where not all of it decides every model; where a model
reads words, also `words_beside(name, value)`, the files that hold them (`beside`); where files may
be pruned, `pruned(model)`. A file is read with an allow-list of classes
and nothing in it is executed (`read_archive`, published=True); what is written holds tensors and
plain values, and in the form of hybrid_space one argparse.Namespace.

Also ASKED, options that its `import_checkpoint` takes from the user; WHOLE, options that a file
says as a whole, in place of a recipe's; NOT_IN_FILE and `guessed(options)`, what no file says; LOST
and NEVER_KEPT, what a file that is written lacks: where no optimizer's state is known, and always.

A module with SETTINGS_FILE reads its options from a JSON file of that name beside the checkpoint
(or `<name>.<that>`):
`import_checkpoint(value, settings)`, `settings_recipe(settings)`, and `settings(options, value)`
the other way.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from models.base import Assets, Mismatch, RetrievalModel
from models.clip.published import recognises
from pipeline import log, registry
from pipeline.checkpoints import finite, first_bytes, model_file, torchscript, word_files
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.clip_model import clip_model
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.word_files import Files, Words
from pipeline.config import Config, assign, merge
from pipeline.errors import ConfigError, DataError
from pipeline.recipes.recipe import Recipe, parse

ZERO_SHOT = "centerclip_zero_shot"


def formats() -> dict[str, ModuleType]:
    """Return the module of each model that has a published form, by the model's name."""
    modules = {name: registry.model_part(name, "published") for name in registry.names("model")}
    return {name: module for name, module in modules.items() if hasattr(module, "recognises")}


def import_file(
    file: Path, files: Files, loaded: Config, recipe: str = "", overrides: Sequence[str] = ()
) -> tuple[ModelInfo, dict[str, Tensor]]:
    """Return a published checkpoint as what `model_file.write_model` takes.

    files: of its words, as far as the user names them (`beside`). recipe: of `loaded`; how to train
    on and how to read captions (default: the published one of its system). overrides: "options.x=1"
    or "train.x=1" over everything else. What no file says is logged with its reason, and stands in
    the checkpoint (`training["assumed"]`).
    Raises DataError naming keys, sizes or classes that do not fit; ConfigError for a recipe of
    another model.
    """
    name, module, value = _recognised(
        file, str(loaded.recipe(recipe).get("model")) if recipe else ""
    )
    side, settings = _side_file(file, module.SIDE_FILE), _settings(file, module)
    changed = _assigned(overrides)
    wanted = merge(loaded.recipe(recipe) if recipe else {}, changed).get("options") or {}
    asked = (changed.get("options") or {}) if settings else wanted
    given = {name: asked[name] for name in getattr(module, "ASKED", ()) if name in asked}
    try:
        options, assets = module.import_checkpoint(value, *settings, **given)
    except Mismatch as error:
        raise DataError(error.what, where=file, fix=error.fix) from error
    finite.check(file, assets.init)
    known = module.words_beside(file.name, value) if hasattr(module, "words_beside") else {}
    words = word_files.read(file, files, known, assets.n_words, assets.n_tags)
    _check_words(file, assets.n_words, assets.n_tags, words)
    facts = _facts(words, assets)
    told = options.model_dump(mode="json", exclude_unset=True)
    chosen = _recipe(
        loaded,
        recipe or _of_form(module, value, settings),
        module=module,
        model=name,
        options=told,
        settings=settings,
        changed=changed,
    )
    assumed = _assumptions(module, chosen, told, settings, changed.get("options") or {})
    for line in assumed:
        log.info(f"assumed {line}")
    training = {"imported": file.name} | module.training_facts(value, side)
    info = ModelInfo(chosen, facts, training | ({"assumed": assumed} if assumed else {}))
    try:
        model = model_file.build_model(info.recipe, facts, init=assets.init).eval()
    except Mismatch as error:
        raise DataError(error.what, where=file, fix=error.fix) from error
    if model.inputs.text == "words":
        _read_two_words(model, file, assets.n_words, known)
    if hasattr(module, "pruned") and (pruned := module.pruned(model)):
        log.info(
            f"{file.name}: {pruned['amount']:.1%} of the weights that pruning takes are zero: it"
            " was pruned"
        )
        info.facts["pruned"] = pruned
    return info, model.state_dict()


def _assigned(overrides: Sequence[str]) -> dict:
    """Return what "a.b=1" assignments say, as a part of a recipe."""
    changed: dict = {}
    for assignment in overrides:
        assign(changed, assignment, "--set")
    return changed


def _of_form(module: ModuleType, value: Mapping, settings: list) -> str:
    """Return the recipe that the form of a file tells, where a module reads files of two systems;
    empty: its usual one.
    """
    return "" if settings or not hasattr(module, "recipe_of") else module.recipe_of(value)


def _facts(words: Words, assets: Assets) -> dict:
    tags = words.tags if words.tags is not None else [f"tag {n}" for n in range(assets.n_tags)]
    vocabulary = dict(words.vocabulary.ids) if words.vocabulary else {}
    facts = {
        "feature_dim": assets.feature_dim,
        "vocabulary": vocabulary,
        "tags": tags,
        "word_dim": None,
        "inputs": {},
    }
    return facts | ({"bag": dict(words.bag.ids)} if words.bag else {})


def is_clip(file: Path) -> bool:
    """Return whether a file holds weights of a CLIP and no system around it, of whoever published
    it.
    """
    if file.suffix == ".safetensors" or torchscript.is_program(file):
        return True
    value = read_archive(file, published=True)
    return recognises(value) and _system_of(value) is None


def import_clip(
    file: Path, loaded: Config, recipe: str = "", overrides: Sequence[str] = ()
) -> tuple[ModelInfo, dict[str, Tensor]]:
    """Weights of a CLIP as a checkpoint of a system that was never trained: for zero-shot
    evaluation and search.

    recipe: of the system (default: the mean of the frames, `centerclip_zero_shot`). overrides:
    "options.x=1" or "train.x=1" over it. Raises DataError as `import_file`.
    """
    values = loaded.recipe(recipe or ZERO_SHOT)
    model, info = clip_model(file, parse(merge(values, _assigned(overrides))))
    return info, model.state_dict()


@dataclass(frozen=True)
class Export:
    """What a published file will hold, and what it cannot.

    module: of its format; info: what our checkpoint says; weights: ours; changes: settings that the
    format cannot keep.
    """

    value: object
    module: ModuleType
    info: ModelInfo
    weights: dict[str, Tensor]
    changes: list[str]


def export_file(source: Path) -> Export:
    """Return a checkpoint of ours in its published form.

    Raises DataError if the model has no published form, or has a size that its form cannot say.
    """
    model, info = model_file.load_model(source)
    module = formats().get(info.recipe.model)
    if module is None:
        raise DataError(
            f"{info.recipe.model} has no published form",
            where=source,
            fix=f"There is one of {', '.join(formats())}.",
        )
    try:
        trained = info.training | {"train": info.recipe.train.model_dump(mode="json")}
        value = module.export_file(info.recipe.options, model.state_dict(), trained)
        settings = (
            [module.settings(info.recipe.options, value)]
            if hasattr(module, "SETTINGS_FILE")
            else []
        )
        _, assets = module.import_checkpoint(_as_read(value), *settings)
    except Mismatch as error:
        raise DataError(error.what, where=source, fix=error.fix) from error
    assert all(
        torch.equal(assets.init[name], tensor) for name, tensor in model.state_dict().items()
    )
    ours = info.recipe.options.model_dump()
    fixed = module.IMPLIED
    if hasattr(module, "implied"):
        fixed = module.implied(info.recipe.options, model.state_dict())
    changes = [
        f"{key} {ours[key]} -> {implied}" for key, implied in fixed.items() if ours[key] != implied
    ]
    return Export(value, module, info, model.state_dict(), changes)


def _recognised(file: Path, wanted: str) -> tuple[str, ModuleType, Mapping]:
    """wanted: the model to try first; files of some systems (DRL without a head, CLIP4Clip) are
    alike.
    """
    value = read_archive(file, published=True)
    if found := _system_of(value, wanted):
        return found
    inside = (
        ", ".join(sorted(map(str, value))[:6])
        if isinstance(value, Mapping)
        else type(value).__name__
    )
    raise DataError(
        f"this is not a published checkpoint that the toolkit knows; it holds: {inside}",
        where=file,
        fix=f"Give a checkpoint of one of: {', '.join(formats())}.",
    )


def _system_of(value: object, wanted: str = "") -> tuple[str, ModuleType, Mapping] | None:
    """Return (model, its module, the value in the form of its program), or None for an unknown
    file.
    """
    known = formats()
    for name in sorted(known, key=lambda name: name != wanted):
        form = known[name].as_published(value)
        if known[name].recognises(form):
            return name, known[name], form
    return None


def _side_file(file: Path, suffix: str) -> Mapping:
    path = file.with_name(file.name + suffix)
    value = read_archive(path, published=True) if suffix and path.is_file() else {}
    return value if isinstance(value, Mapping) else {}


def _check_words(file: Path, n_words: int, n_tags: int, words: Words) -> None:
    size = len(words.vocabulary) if words.vocabulary else 0
    if size != n_words:
        raise DataError(
            f"a vocabulary of {size:,} entries; {file.name} was trained with {n_words:,}",
            where=words.files.vocab,
            fix=(
                "Give the vocabulary that this checkpoint was trained with (special entries count)."
            ),
        )
    if words.tags is not None and len(words.tags) != n_tags:
        raise DataError(
            f"{len(words.tags):,} tags; {file.name} was trained with {n_tags:,}",
            where=words.files.tags,
            fix=(
                "Give the tag vocabulary that this checkpoint was trained with."
                if n_tags
                else "Leave --tags out."
            ),
        )


@torch.inference_mode()
def _read_two_words(
    model: RetrievalModel, file: Path, n_words: int, known: Mapping[str, Sequence[str]]
) -> None:
    """Raise ConfigError for a model whose bags count words of their own, which were not given."""
    text = torch.full((1, 2), n_words - 1)
    try:
        model.encode_text(
            {"text": text, "text_mask": torch.ones_like(text, dtype=torch.bool)}, model.prepare()
        )
    except Mismatch as error:
        raise ConfigError(
            f"{file.name} counts words of a second vocabulary: {error.what}",
            where="--bag",
            fix=(
                f"Give it: {' or '.join(known.get('bag', ())[:2]) or 'the vocabulary of its bags'}."
            ),
        ) from error


def _recipe(
    loaded: Config,
    name: str,
    *,
    module: ModuleType,
    model: str,
    options: dict,
    settings: list[Mapping],
    changed: dict,
) -> Recipe:
    """Return the named recipe with the model options of the file over its own; by default that of
    the settings beside it.
    """
    values = loaded.recipe(name or module.RECIPE)
    if settings and not name:
        values = merge(values, module.settings_recipe(*settings)) | {"name": "imported"}
    if values.get("model") != model:
        raise ConfigError(
            f"recipe {name} is for {values.get('model')}, the file holds {model}",
            where="--recipe",
            fix="Name a recipe of that model (python cli.py list recipes), or leave --recipe out.",
        )
    merged = merge(values.get("options") or {}, options)
    merged |= {key: options[key] for key in getattr(module, "WHOLE", ()) if key in options}
    values = values | {"options": merged}
    return parse(merge(values, changed))


def _assumptions(
    module: ModuleType, recipe: Recipe, told: Mapping, settings: list[Mapping], changed: Mapping
) -> list[str]:
    """Return what neither the file, nor settings beside it, nor the user said: "option value:
    reason".
    """
    if settings:
        return module.assumptions(*settings)
    values = recipe.options.model_dump(mode="json")
    taken = [
        f"{name} {values[name] or 'none'}: {why}; as recipe {recipe.name} has it"
        for name, why in getattr(module, "NOT_IN_FILE", {}).items()
        if name not in told and name not in changed
    ]
    if hasattr(module, "guessed") and "text_prompts" not in changed:
        taken += module.guessed(recipe.options)
    return taken


def _settings(file: Path, module: ModuleType) -> list[Mapping]:
    """Return what the settings file beside a checkpoint says, in a list; [] where there is none."""
    name = getattr(module, "SETTINGS_FILE", "")
    places = [file.with_name(f"{file.name}.{name}"), file.with_name(name)] if name else []
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return []
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        module.settings_recipe(settings)
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # ValueError: also JSON, Unicode and Mismatch
        what = first_bytes.what_it_is(path) or str(error).splitlines()[0]
        raise DataError(
            f"not the settings of {file.name}: {what}",
            where=path,
            fix=(
                "Put the file there that its training wrote, or take this one away and name a"
                " --recipe."
            ),
        ) from error
    return [settings]


def _as_read(value: Mapping) -> dict:
    return {
        key: vars(part) if hasattr(part, "__dict__") and key == "opt" else part
        for key, part in value.items()
    }
