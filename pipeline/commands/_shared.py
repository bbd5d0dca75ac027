"""Options that every running command shares."""

from collections.abc import Callable
from pathlib import Path

import click

from pipeline import config
from pipeline.core.todo import Settings
from pipeline.errors import ConfigError, TvrError


def _shard(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int]:
    if value is None:
        return (0, 1)
    index, slash, count = value.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 0 <= int(index) < int(count)):
        raise ConfigError(
            f"--shard {value!r} is not I/N with 0 <= I < N",
            fix="For example: --shard 3/16 (the first is 0/16).",
        )
    return int(index), int(count)


RUN_OPTIONS = (
    lambda: click.Option(
        ["-j", "--jobs"],
        type=click.IntRange(0),
        metavar="INTEGER",
        default=0,
        help="worker processes  [one per core]",
    ),
    lambda: click.Option(
        ["--shard"],
        callback=_shard,
        metavar="I/N",
        help="only part I of N, from 0; join with merge",
    ),
    lambda: click.Option(
        ["--retries"],
        type=click.IntRange(0),
        metavar="INTEGER",
        default=1,
        help="per item, after a system error  [1]",
    ),
    lambda: click.Option(["--retry-failed"], is_flag=True, help="redo items that were set aside"),
    lambda: click.Option(
        ["--allow-removals"],
        is_flag=True,
        help="accept that most of the former inputs, or all, are gone",
    ),
    lambda: click.Option(["--fail-fast"], is_flag=True, help="stop at the first item that fails"),
    lambda: click.Option(
        ["--max-failures"],
        type=click.FloatRange(0, 1),
        metavar="NUMBER",
        default=0.05,
        help="share that may fail  [0.05]",
    ),
    lambda: click.Option(
        ["--memory"],
        type=click.FloatRange(0),
        metavar="NUMBER",
        default=4.0,
        help="GiB per worker, 0: no limit  [4]",
    ),
    lambda: click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        default=None,
        help="YAML file over the shipped pipelines.yaml",
    ),
)


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="STEP.OPTION=VALUE",
    help="change an option (may be repeated); none: as it was  [as in the last run]",
)
work_option = click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("data/work"),
    help="folder of the steps  [data/work]",
)
config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=None,
    help="YAML file over the shipped pipelines.yaml",
)


def names_of(section: str) -> Callable:
    """Return what a shell completes an argument with: the names of a section of pipelines.yaml."""

    def complete(_context: click.Context, _param: click.Parameter, begun: str) -> list[str]:
        try:
            names = getattr(config.load(None), section)
        except TvrError:  # a shell that completes has no place for messages
            return []
        return sorted(name for name in names if name.startswith(begun))

    return complete


def jobs_option(what: str) -> Callable:
    """Return the decorator that adds `--jobs`; what: the things that are worked on in parallel."""
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(0),
        metavar="INTEGER",
        default=0,
        help=f"{what}  [one per core]",
    )


def run_options(function):
    """Decorate a click command with RUN_OPTIONS."""
    function.__click_params__ = [option() for option in reversed(RUN_OPTIONS)] + getattr(
        function, "__click_params__", []
    )
    return function


def settings_from(values: dict) -> Settings:
    """Take the run options out of a command's values (all but `config`)."""
    return Settings(
        jobs=values.pop("jobs"),
        retries=values.pop("retries"),
        max_failures=values.pop("max_failures"),
        memory_bytes=int(values.pop("memory") * 2**30),
        retry_failed=values.pop("retry_failed"),
        fail_fast=values.pop("fail_fast"),
        allow_removals=values.pop("allow_removals"),
        force=bool(values.pop("force", False)),
        shard=values.pop("shard"),
    )
