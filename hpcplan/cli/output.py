"""How commands speak: one JSON document on stdout for ``--format json``, tables on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["console", "echo_json", "format_option", "narrate", "progress", "progress_bar", "progress_of", "table"]

F = TypeVar("F", bound=Callable[..., Any])

format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON document on stdout.",
)


def echo_json(data: Any) -> None:
    """Print one JSON document on stdout, and nothing else."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def narrate(text: str) -> None:
    """Say something to a person: stderr, so that stdout stays clean for what was asked."""
    click.echo(text, err=True)


def console(*, stderr: bool = False) -> Console:
    """Return a rich console; off a terminal it neither wraps below 160 columns nor colours."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False, soft_wrap=False)


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a rich table; a column whose title begins with ``>`` is right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        result.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return result


@contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr for work of ``total`` steps; yields what to call after each. Silent off a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(text, total=total)
        yield lambda: bars.advance(task)


@contextmanager
def progress_of(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on stderr for work whose length shows as it goes on; yields what to tell: done, of so many, a word.

    Silent off a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done, total, word: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[word]}"))  # fmt: skip
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(text, total=None, word="")
        yield lambda done, total, word: bars.update(task, completed=done, total=total, word=word)


def progress(text: str) -> AbstractContextManager[object]:
    """Return a spinner on stderr for work that may take over a second; silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    return console(stderr=True).status(text)
