"""Starting up: the table of commands, their help, and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from hpcplan import __version__
from hpcplan.cli import COMMANDS, hpcplan, main


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and subcommand with what one types for it."""
    context = click.Context(hpcplan)
    for name in hpcplan.list_commands(context):
        command = hpcplan.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner, subcommand in command.commands.items():
                yield f"{name} {inner}", subcommand


EVERY_COMMAND = pytest.mark.parametrize("command", [pytest.param(command, id=name) for name, command in all_commands()])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_repeats_the_first_line_of_each_command(name: str) -> None:
    command = hpcplan.get_command(click.Context(hpcplan), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]


def test_help_lists_every_command_with_its_line(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    listed = " ".join(out.partition("Commands:")[2].split())
    assert listed == " ".join(f"{name} {text}" for name, (_, text) in COMMANDS.items())


@EVERY_COMMAND
def test_help_has_an_example(command: click.Command) -> None:
    assert "Example" in (command.help or "")


@EVERY_COMMAND
def test_every_option_says_what_it_does(command: click.Command) -> None:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(run, shell: str) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    assert "_HPCPLAN_COMPLETE" in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("hpcplan mo", "mock"), ("hpcplan mock adv", "advance"), ("hpcplan plan --obj", "--objective")],
)
def test_completion_finishes_a_word(run, monkeypatch: pytest.MonkeyPatch, typed: str, offered: str) -> None:
    monkeypatch.setenv("_HPCPLAN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    code, out, _ = run()
    assert code == 0
    assert f"plain,{offered}" in out.split()


def test_a_command_that_is_not_there_names_the_nearest(run) -> None:
    code, out, err = run("sumbit")
    assert (code, out) == (2, "")
    assert "did you mean 'submit'" in err


def test_the_package_runs_as_a_module_and_says_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpcplan", "--version"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == f"hpcplan {__version__}\n"
