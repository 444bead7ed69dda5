"""Command lines as getopt_long(3) reads them, for commands whose options are a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from hpcplan.simulate.commands.reply import Call, Refusal

__all__ = [
    "Flag", "OptionLike", "Words", "flags", "read_components", "read_words", "refuse_both", "say_cluster", "usage",
]  # fmt: skip


class OptionLike(Protocol):
    """What a table says of one option."""

    @property
    def name(self) -> str:
        """The long name, without dashes."""
        ...

    @property
    def short(self) -> str | None:
        """The letter, if it has one."""
        ...

    @property
    def argument(self) -> Literal["none", "required", "optional"]:
        """Whether a value follows."""
        ...


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of a command."""

    name: str
    short: str | None = None
    argument: Literal["none", "required", "optional"] = "required"


def flags(required: str = "", none: str = "", optional: str = "") -> tuple[Flag, ...]:
    """Return a table from words such as ``"jobs:j format:o"``, by what follows the options."""

    def read(words: str, argument: Literal["none", "required", "optional"]) -> list[Flag]:
        return [Flag(name, short or None, argument) for name, _, short in (w.partition(":") for w in words.split())]

    return (*read(required, "required"), *read(none, "none"), *read(optional, "optional"))


@dataclass(slots=True)
class Words:
    """What was typed: options in order (a later one wins), and the words that are none."""

    given: list[tuple[Any, str | None]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return any(option.name == name for option, _ in self.given)

    def last(self, name: str) -> str | None:
        """Return the value of the last ``--name``, ``None`` if it was not given or has none."""
        found = None
        for option, value in self.given:
            if option.name == name:
                found = value
        return found

    def every(self, name: str) -> list[str]:
        """Return the values of every ``--name``, split at commas."""
        return [
            item
            for option, value in self.given
            if option.name == name and value
            for item in value.split(",")
            if item.strip()
        ]


def usage(command: str, table: Iterable[OptionLike], arguments: str = "") -> str:
    """Return what ``--help`` and ``--usage`` print: how a command is called, and the options that it takes here."""
    endings = {"none": "", "required": "=VALUE", "optional": "[=VALUE]"}
    lines = [
        f"  {f'-{option.short}, ' if option.short else '    '}--{option.name}{endings[option.argument]}"
        for option in sorted(table, key=lambda option: option.name)
    ]
    return "\n".join([f"Usage: {command} [OPTIONS] {arguments}".rstrip(), "", "Options of this mock cluster:", *lines])


def refuse_both(command: str, words: Words, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Refuse two options (name, letter) that exclude each other.

    Raises:
        Refusal: both were given.
    """
    if first[0] in words and second[0] in words:
        both = " and ".join(f"-{letter}(--{name})" for name, letter in (first, second))
        raise Refusal(f"{command}: fatal: Options {both} are mutually exclusive. Please remove one and retry.")


def say_cluster(call: Call, words: Words) -> None:
    """Print the line that says which cluster follows, where ``--clusters`` was given."""
    if (named := words.last("clusters") or words.last("cluster")) is not None:
        call.reply.say(f"CLUSTER: {named}")


_MOST_WORDS: Final = 100_000


def read_words(
    command: str, words: Sequence[str], table: Iterable[OptionLike], *, stop_at_first: bool = False
) -> Words:
    """Return what ``words`` say.

    ``stop_at_first`` leaves all after the first word that is no option alone, as commands do that run another one.

    Raises:
        Refusal: an unknown option, or a missing value, in getopt's words (exit code 1).
    """
    known = {option.name: option for option in table}
    letters = {option.short: option for option in known.values() if option.short}
    result = Words()
    rest = list(words[:_MOST_WORDS])
    while rest:
        word = rest.pop(0)
        if word == "--":
            result.rest += rest
            break
        if word.startswith("--"):
            result.given.append(_long(command, word, rest, known))
        elif word.startswith("-") and word != "-":
            result.given += _short(command, word[1:], rest, letters)
        elif stop_at_first:
            result.rest += [word, *rest]
            break
        else:
            result.rest.append(word)
    return result


def read_components(command: str, words: Sequence[str], table: Iterable[OptionLike]) -> list[Words]:
    """Return what ``words`` say of each component of a heterogeneous job: options, a colon, options …, a command.

    Raises:
        Refusal: as :func:`read_words`.
    """
    table = tuple(table)
    parts = [read_words(command, words, table, stop_at_first=True)]
    while parts[-1].rest[:1] == [":"]:
        rest, parts[-1].rest = parts[-1].rest[1:], []
        parts.append(read_words(command, rest, table, stop_at_first=True))
    return parts


def _long(command: str, word: str, rest: list[str], known: dict[str, OptionLike]) -> tuple[Any, str | None]:
    name, has_value, value = word[2:].partition("=")
    close = [name] if name in known else sorted(long for long in known if long.startswith(name))
    if not close:
        raise _unknown(command, f"{command}: unrecognized option '{word}'")
    if len(close) > 1:
        choices = " ".join(f"'--{choice}'" for choice in close)
        raise _unknown(command, f"{command}: option '{word}' is ambiguous; possibilities: {choices}")
    option = known[close[0]]
    if has_value:
        if option.argument == "none":
            raise _unknown(command, f"{command}: option '--{option.name}' doesn't allow an argument")
        return option, value
    if option.argument == "required":
        if not rest:
            raise _unknown(command, f"{command}: option '{word}' requires an argument")
        return option, rest.pop(0)
    return option, None


def _short(command: str, text: str, rest: list[str], letters: dict[str, OptionLike]) -> list[tuple[Any, str | None]]:
    found: list[tuple[Any, str | None]] = []
    while text:
        letter, text = text[0], text[1:]
        option = letters.get(letter)
        if option is None:
            raise _unknown(command, f"{command}: invalid option -- '{letter}'")
        if option.argument == "none":
            found.append((option, None))
            continue
        if option.argument == "required" and not text:
            if not rest:
                raise _unknown(command, f"{command}: option requires an argument -- '{letter}'")
            text = rest.pop(0)
        found.append((option, text or None))
        break
    return found


def _unknown(command: str, message: str) -> Refusal:
    advice = "" if command in {"sacct", "sstat"} else f'\nTry "{command} --help" for more information'
    return Refusal(message + advice, 1)
