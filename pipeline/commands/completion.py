"""Print what makes a shell complete commands and options.

    tvrkit completion bash >> ~/.bashrc
    tvrkit completion zsh >> ~/.zshrc
    tvrkit completion fish > ~/.config/fish/completions/tvrkit.fish

It completes the command that `pip install .` makes.
"""

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_TVRKIT_COMPLETE"  # the name that click makes of the program's


@click.command(help=__doc__)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    kind = get_completion_class(shell)
    made = kind(context.find_root().command, {}, "tvrkit", _VARIABLE)
    click.echo(made.source_template % made.source_vars())
