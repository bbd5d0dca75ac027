"""What --help shows."""

import click
import pytest

import cli
from pipeline import registry


def shown(*command: str) -> str:
    group = cli.cli
    context = click.Context(group, info_name="cli.py", terminal_width=80)
    found = group.get_command(context, command[0])
    return found.get_help(click.Context(found, info_name=command[0], parent=context))


@pytest.mark.parametrize("command", [*registry.names("command"), *registry.names("stage")])
def test_help_of_a_command_fits_on_a_screen(command: str) -> None:
    assert len(shown(command).splitlines()) <= 48


@pytest.mark.parametrize("stage", registry.names("stage"))
def test_help_of_a_stage_names_every_option(stage: str) -> None:
    text = shown(stage).replace("[no-]", "")

    for option in cli.cli.get_command(click.Context(cli.cli), stage).params:
        assert option.opts[-1] in text


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_command_has_one_line_in_the_list_of_commands() -> None:
    listed = [(kind, name) for kind in ("command", "stage") for name in registry.names(kind)]

    assert {name for kind, name in listed if len(registry.summary(kind, name)) > 60} == set()


@pytest.mark.parametrize("stage", registry.names("stage"))
def test_help_of_a_stage_marks_every_input_that_must_be_given(stage: str) -> None:
    needs = registry.find("stage", stage).Stage.needs
    inputs = words(shown(stage).partition("Options:")[0])

    assert inputs.count("[required]") == 1 + sum(not need.optional for need in needs.values())


def test_help_of_train_marks_the_recipe_as_required() -> None:
    recipe = words(shown("train")).partition("--recipe")[2].partition("--device")[0]

    assert recipe.endswith("[required] ")


@pytest.mark.parametrize("command", ["evaluate", "merge", "explain"])
def test_examples_in_help_keep_their_lines(command: str) -> None:
    kind = "stage" if command == "evaluate" else "command"
    examples = [
        part for part in registry.help_text(kind, command).split("\n\n") if "cli.py" in part
    ]
    lines = examples[0].split("\n")

    assert len(lines) > 1
    assert set(lines) <= {line.removeprefix("  ") for line in shown(command).split("\n")}


def test_defaults_that_are_nothing_are_not_shown() -> None:
    assert "[none]" not in shown("train")
    assert "[{}]" not in shown("evaluate")
