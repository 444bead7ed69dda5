"""``hpcplan completion``: the script that teaches a shell to complete."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the shell completion script.

    \b
    Example:
      hpcplan completion bash > ~/.local/share/bash-completion/completions/hpcplan
      hpcplan completion zsh  > "${fpath[1]}/_hpcplan"
      hpcplan completion fish > ~/.config/fish/completions/hpcplan.fish
    """
    from click.shell_completion import get_completion_class

    from hpcplan.cli import hpcplan

    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(hpcplan, {}, "hpcplan", "_HPCPLAN_COMPLETE").source())
