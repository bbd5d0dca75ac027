"""The command of a stage, made from the stage: a flag for every option and every need, with the
option's own description.
"""

import json
import re
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline import config, registry
from pipeline.commands._dataset import is_dataset, path_spec
from pipeline.commands._download_sources import source_of
from pipeline.commands._shared import RUN_OPTIONS, settings_from
from pipeline.core import ranks, runner, seeds
from pipeline.core.artefact import Artefact, GivenArtefact
from pipeline.core.execute import finished_parts
from pipeline.core.plan import dataset_artefact, stage_options
from pipeline.core.results.intact import expect_intact
from pipeline.core.stage import Need, Stage
from pipeline.core.state import STATE, read_manifest
from pipeline.core.todo import shard_folder
from pipeline.errors import ConfigError, DataError
from pipeline.video.frame_rule import Limits

_LAST = "Running"  # the section of what every stage takes
_MOST_CHOICES = 6  # that a help text lists
_COLUMN = 28  # where the explanations begin
_ALSO_IN_RUN = ("shard", "retries", "retry_failed", "allow_removals", "fail_fast", "max_failures")
_ALSO_IN_RUN += ("memory", "config")


class StageCommand(click.Command):
    """A command whose help lists inputs, options, and what every stage takes in sections, and fits
    on a screen: options that `run` explains are only named.
    """

    def __init__(self, name: str, sections: dict[str, list[click.Parameter]], **more: object):
        super().__init__(name, params=[p for part in sections.values() for p in part], **more)
        self._sections = sections

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rest = [p for p in self.get_params(context) if p not in self.params]  # --help
        for title, params in self._sections.items():
            shown = params + (rest if title == _LAST else [])
            named = [p for p in shown if title == _LAST and p.name in _ALSO_IN_RUN]
            with formatter.section(title):
                records = [_record(p, context) for p in shown if p not in named]
                formatter.write_dl(records, col_max=_COLUMN)
                if named:
                    flags = ", ".join(p.opts[0] for p in named)
                    lines = textwrap.wrap(
                        f"As in `run --help`: {flags}", formatter.width - 4, break_on_hyphens=False
                    )
                    formatter.write("".join(f"  {line}\n" for line in lines))


def _record(option: click.Parameter, context: click.Context) -> tuple[str, str]:
    """Return (names, text) of an option, short enough for one line where that can be: the choices
    stand in the text, and `--x / --no-x` is `--[no-]x`.
    """
    names, text = option.get_help_record(context)
    if option.secondary_opts:
        return f"--[no-]{option.opts[0][2:]}", text
    if isinstance(option.type, click.Choice) and len(names) > _COLUMN - 2:
        choices = [str(c) for c in option.type.choices]
        named = [re.search(rf"(?<![\w-]){re.escape(c)}(?![\w-])", text) for c in choices]
        if not all(named) and len(choices) <= _MOST_CHOICES:  # click lists more where one is wrong
            text = f"{'|'.join(choices)}: {text}"
        return f"{', '.join(option.opts)} CHOICE", text
    return names, text


def stage_command(name: str) -> click.Command:
    """Return the click command that runs one stage without YAML. Same code and state files as
    `run`.
    """
    kind = registry.find("stage", name).Stage
    out = click.Option(
        ["-o", "--out", "out"],
        required=True,
        type=click.Path(path_type=Path),
        help="folder to write",
    )
    force = click.Option(["--force"], is_flag=True, help="make it anew although it is up to date")
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="print the manifest as JSON")
    fields = kind.Options.model_fields
    limits = [option for option in fields if option in Limits.model_fields]
    several = click.Option(
        ["--seeds"],
        type=click.IntRange(1, seeds.MOST),
        metavar="INTEGER",
        default=1,
        help="train with this many seeds; the others beside OUT  [1]",
    )
    sections = {
        "Inputs and output": [*_need_options(kind), out],
        "Options": [
            *(_option(o, field) for o, field in fields.items() if o not in limits),
            *([several] if kind.is_seeded else []),
        ],
        "Limits of a video": [_option(option, fields[option]) for option in limits],
        _LAST: [*(option() for option in RUN_OPTIONS), force, as_json],
    }

    def call(**values: object) -> None:
        _run(name, kind, values)

    return StageCommand(
        name,
        {title: params for title, params in sections.items() if params},
        callback=call,
        help=_without_sources(registry.help_text("stage", name)),
    )


def _without_sources(text: str) -> str:
    """Return a docstring without the paragraph that cites sources: it is for readers of the
    code.
    """
    return "\n\n".join(p for p in text.split("\n\n") if not p.startswith("Source: "))


def _need_options(kind: type[Stage]) -> list[click.Option]:
    """Return a flag for every need; the first one is also called --in."""
    options = []
    for position, (need, spec) in enumerate(kind.needs.items()):
        flags = ["--in"] * (position == 0) + [f"--{need.replace('_', '-')}"]
        words = _need_help(spec) + ("" if spec.optional else "  [required]")
        options.append(
            click.Option([*flags, _need_key(need)], multiple=spec.many, metavar="PATH", help=words)
        )
    return options


def _need_key(need: str) -> str:
    return f"need_{need}"


def _need_help(spec: Need) -> str:
    words = spec.help or f"{spec.kind.replace('_', ' ')}: a file, a folder, or the --out of a step"
    return words + (" (may be repeated)" if spec.many else "")


def _option(name: str, field) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    kind = _simple_type(field.annotation)
    default = (
        field.get_default(call_default_factory=True)
        if not field.is_required()
        else PydanticUndefined
    )
    text = (field.description or "").strip()
    shown = _shown(default)
    if (field.json_schema_extra or {}).get("repeated"):
        return click.Option([flag, name], multiple=True, metavar="FIELD=VALUE", help=text)
    if kind is bool:
        return click.Option(
            [f"{flag}/--no-{name.replace('_', '-')}", name], default=None, help=text + shown
        )
    if isinstance(kind, list):
        return click.Option([flag, name], type=click.Choice(kind), default=None, help=text + shown)
    metavar = {int: "INTEGER", float: "NUMBER", str: "TEXT"}.get(kind, "YAML")
    return click.Option([flag, name], default=None, metavar=metavar, help=text + shown)


def _simple_type(annotation: object) -> object:
    """bool, int, float or str (also when None is allowed), the choices of a Literal of strings,
    else None (YAML).
    """
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType) and len(inner) == 1:
        return _simple_type(inner[0])
    if get_origin(annotation) is Literal:
        return list(inner) if all(isinstance(a, str) for a in inner) else None
    if annotation in (bool, int, float, str):
        return annotation
    return str if annotation is Path else None


def _shown(default: object) -> str:
    """Return a default as help shows it: " [...]", or nothing where there is none to name."""
    if default is PydanticUndefined:
        return "  [required]"
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json", exclude_defaults=True)
    if default is None or default in ({}, [], ""):
        return ""
    if isinstance(default, list):
        return f"  [{', '.join(map(str, default))}]"
    return f"  [{str(default).lower() if isinstance(default, bool) else default}]"


def _run(name: str, kind: type[Stage], values: dict) -> None:
    settings = settings_from(values)
    as_json, out, count = values.pop("as_json"), values.pop("out"), values.pop("seeds", 1)
    loaded = config.load(values.pop("config"))
    inputs = {
        need: _input(loaded, name, need=need, spec=spec, value=values.pop(_need_key(need)), out=out)
        for need, spec in kind.needs.items()
    }
    given = {key: value for key, value in values.items() if value not in (None, ())}
    chosen = {key: _parse(kind, key, value) for key, value in given.items()}
    options = stage_options(kind, chosen, loaded, name)
    for folder, of_run in seeds.repeated(kind, out.name, options, count):
        target = out.with_name(folder) if count > 1 else out
        _expect_apart(target, inputs)
        manifest = runner.run(
            kind(of_run, inputs, target),
            name,
            settings,
            reuse_from=finished_parts(target) if settings.shard[1] == 1 else (),
        )
        if ranks.rank() > 0:
            continue
        if as_json:
            click.echo(json.dumps(manifest, indent=1, ensure_ascii=False))
        else:
            _report(shard_folder(target, settings.shard), manifest)


def _expect_apart(out: Path, inputs: dict[str, Artefact | list[Artefact] | None]) -> None:
    """ConfigError if a step would write into a folder that it reads."""
    target = out.resolve()
    for need, given in inputs.items():
        for made in given if isinstance(given, list) else [given]:
            if made is not None and made.path.resolve() == target:
                raise ConfigError(
                    "it is the folder of an input too: results would lie among the files they are"
                    " made from",
                    where=f"--out {out}, --{need.replace('_', '-')} {made.path}",
                    fix="Give --out a folder of its own. Nothing was written.",
                )


def _parse(kind: type[Stage], key: str, value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    simple = _simple_type(kind.Options.model_fields[key].annotation)
    if simple is str or isinstance(simple, list) or not isinstance(value, str):
        return value
    return config.safe_yaml(value, f"--{key.replace('_', '-')}")


def _input(
    loaded: config.Config, stage: str, need: str, spec: Need, value: object, out: Path
) -> Artefact | list[Artefact] | None:
    if not value:
        if not spec.optional:
            flag = f"--{need.replace('_', '-')}"
            raise ConfigError(f"{stage} needs {flag}", fix=f"Give {flag} PATH: {_need_help(spec)}.")
        return [] if spec.many else None
    if spec.many:
        return [_artefact(loaded, spec, v, out) for v in value]
    return _artefact(loaded, spec, value, out)


def _artefact(loaded: config.Config, spec: Need, value: str, out: Path) -> Artefact:
    """Return a dataset's name, the output folder of a step, or a raw file or folder."""
    if spec.kind in ("annotations", "video_files") and is_dataset(loaded, value):
        return dataset_artefact(loaded.dataset(value), spec.kind)
    path = Path(value)
    if not path.exists():
        source = source_of(path)
        fix = f"Check the path, or bring it: {source}" if source else "Check the path."
        raise DataError("there is no such file or folder", where=path, fix=fix)
    manifest = read_manifest(path)
    if manifest:
        expect_intact(path)
        if manifest["makes"] not in (spec.kind, *spec.also):
            raise DataError(
                f"it holds {manifest['makes']} of {manifest['stage']}, but {spec.kind} is needed",
                where=path,
                fix="Give the --out folder of a stage that makes it.",
            )
        return Artefact(
            kind=manifest["makes"],
            path=path,
            fingerprint=manifest.get("fingerprint", ""),
            content=manifest["content"],
            step=manifest["step"],
            options=manifest.get("options", {}),
        )
    if spec.kind == "annotations":
        return dataset_artefact(path_spec(path), "annotations")
    return GivenArtefact(spec.kind, path, remembered=out / STATE / "digests.jsonl")


def _report(folder: Path, manifest: dict) -> None:
    kind = registry.find("stage", manifest["stage"]).Stage
    lines = kind.told(folder, manifest["summary"]) or "\n".join(_lines(manifest["summary"]))
    click.echo(lines)
    click.echo(f"{'out':<24} {folder}")


def _lines(summary: dict, path: str = "") -> Iterator[str]:
    """Yield a line for each value, inner ones with their path."""
    for key, value in summary.items():
        if isinstance(value, dict) and value:
            yield from _lines(value, f"{path}{key}.")
            continue
        if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
            value = ", ".join(map(str, value)) or "-"
        elif isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False)
        yield f"{path + str(key):<24} {value}"
