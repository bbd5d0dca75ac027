"""tvrkit: from raw videos to ranked text-video retrieval results.

A command is a file in pipeline/commands/ or a stage in pipeline/stages/; nothing is imported before
it is called.
"""

import contextlib
import inspect
import os
import sys
from pathlib import Path

# threads that spin while they wait cost 2 to 8 times the CPU seconds on a shared machine
# (measured); before torch loads
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import click

from pipeline import __version__, log, plugins, registry, version
from pipeline.core import ranks
from pipeline.errors import ConfigError, TvrError, system_error
from pipeline.visible import CHECKOUT, Stream

_OURS = ("pipeline", "models", "cli", "tvrkit")
_PIPELINE = ("demo", "run", "status", "failures", "verify", "merge", "forget")


class Lazy(click.Group):
    """Finds commands by file name; their one-line helps are read without importing them."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted({*registry.names("command"), *registry.names("stage")})

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name in registry.names("command"):
            found = registry.find("command", name).command
        elif name in registry.names("stage"):
            from pipeline.commands._stage import stage_command

            found = stage_command(name)
        else:
            return None
        found.help = _with_examples(found.help or "")
        return found

    def resolve_command(self, context: click.Context, args: list[str]):
        if context.resilient_parsing:  # a shell asks what may follow
            return super().resolve_command(context, args)
        if "-".join(args[:2]) in self.list_commands(context):  # `fetch weights` is fetch-weights
            args = ["-".join(args[:2]), *args[2:]]
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(context):
            hint = registry.suggest(args[0], self.list_commands(context))
            raise ConfigError(f"there is no command {args[0]!r}", fix=hint)
        return super().resolve_command(context, args)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        commands = registry.names("command")
        groups = {
            "Pipelines": [c for c in _PIPELINE if c in commands],
            "Stages (each runs alone, each resumes)": registry.names("stage"),
            "Everything else": [c for c in commands if c not in _PIPELINE],
        }
        for title, members in groups.items():
            with formatter.section(title):
                kind = "stage" if title.startswith("Stages") else "command"
                formatter.write_dl([(name, registry.summary(kind, name)) for name in members])


def _with_examples(text: str) -> str:
    """Mark the examples of a docstring, which are paragraphs of commands, as not to be wrapped."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"\b\n{part}" if part.lstrip().startswith((CHECKOUT, "tvrkit ")) else part
        for part in paragraphs
    )


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        commit = version.commit()
        click.echo(f"tvrkit, version {__version__}" + (f" (commit {commit})" if commit else ""))
        context.exit()


def _plugins(
    _context: click.Context, _option: click.Parameter, given: tuple[Path, ...]
) -> tuple[Path, ...]:
    for folder in given:
        if not any((folder / name).is_dir() for name in plugins.SUBFOLDERS):
            raise ConfigError(
                f"{folder} holds none of {', '.join(plugins.SUBFOLDERS)}",
                where="--plugins",
                fix="A stage is a file DIR/stages/NAME.py; docs/python.md shows the others.",
            )
        plugins.add(folder)
    return given


@click.command(
    cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show version and commit.",
)
@click.option(
    "--plugins",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_plugins,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder with stages/, datasets/, models/ of yours.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--log-json", is_flag=True, help="Log one JSON object per line.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def cli(debug: bool, log_json: bool, verbose: bool) -> None:
    """From raw videos to ranked text-video retrieval results.

    \b
    python cli.py demo                                       everything, on a generated corpus
    python cli.py compress --in raw --out small --fps 3      one stage
    python cli.py run msrvtt-dual-encoding --dry-run         a pipeline: what would be done
    """
    log.set_up(log_json, verbose)


def main(arguments: list[str] | None = None, program: str = CHECKOUT) -> int:
    """Run the command line and return the exit code; errors a user can act on come without a
    traceback.

    program: how the user calls it, for usage lines and the commands that messages name.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with (
        contextlib.redirect_stdout(Stream(sys.stdout, program)),
        contextlib.redirect_stderr(Stream(sys.stderr, program)),
    ):
        return _run(arguments, program)


def _run(arguments: list[str], program: str) -> int:
    debug = "--debug" in arguments
    try:
        result = cli.main(args=arguments, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TvrError as error:
        return _fail(str(error), error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130, debug)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (`| head`)
        return 0
    except OSError as error:
        refused = system_error(error)
        return _fail(str(refused), refused.exit_code, debug)
    except MemoryError:
        message = (
            "the memory is used up\n    Lower the batch size or --jobs, or close other programs."
        )
        return _fail(message, 6, debug)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in _OURS:
            return _fail(_internal(error), 1, debug)
        message = (
            f"the package {error.name} is not installed here\n    Run: {sys.executable} -m pip"
            f" install {error.name}   (python cli.py doctor names all that is missing)"
        )
        return _fail(message, 6, debug)
    except Exception as error:
        return _fail(_internal(error), 1, debug)


def _internal(error: Exception) -> str:
    return (
        f"internal error: {type(error).__name__}: {error}\n    Please report it with the output of"
        " --debug."
    )


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(message, err=True)
    return code


if __name__ == "__main__":
    ranks.leave(main())
