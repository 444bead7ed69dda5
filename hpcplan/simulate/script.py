"""Reading the ``#SBATCH`` lines of a batch script, as sbatch does.

Two comment lines of our own, anywhere before the first command, say how a *pretended* job behaves:
``# hpcplan: expected-runtime-s=1234`` (without it, half of the time limit) and ``# hpcplan: pretend-exit=N``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.het_jobs import inherited
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.sbatch_options import OPTIONS, SHORT_OPTIONS, Option, fields_of

__all__ = ["directives", "parse_components", "parse_options", "parse_script"]

_TRY: Final = 'Try "sbatch --help" for more information'
_OURS: Final = re.compile(r"#\s*hpcplan:\s*([a-z-]+)\s*=\s*(\S+)\s*")
_PRETENCE: Final = {"expected-runtime-s": "expected_runtime_s", "pretend-exit": "pretend_exit"}


def parse_script(
    text: str, *, name: str = "sbatch", version: str | None = None, overrides: Mapping[str, Any] | None = None
) -> JobSpec:
    """Return what a batch script asks for. ``overrides`` are fields that the command line gave; they win.

    ``name`` is the job's name where the script gives none (sbatch takes the script's file name). ``version`` is the
    Slurm that is pretended: options that it did not have yet are refused.

    Raises:
        SlurmError: the script would be refused, in sbatch's words.
    """
    components = parse_components(text, name=name, version=version, everywhere=overrides)
    if len(components) > 1:
        raise SlurmError("sbatch: error: a heterogeneous job cannot be asked about here", hint="submit it")
    return components[0]


def parse_components(
    text: str,
    *,
    name: str = "sbatch",
    version: str | None = None,
    everywhere: Mapping[str, Any] | None = None,
    typed: Sequence[Mapping[str, Any]] = (),
) -> list[JobSpec]:
    """Return what each component of a batch script asks for: one, but in a heterogeneous job.

    As :func:`parse_script`; ``everywhere`` are fields that win in each component, ``typed`` those that the command line
    gave for the first, the second and so on. What a component does not say for itself it has from the one before, but
    for its size and its nodes (:func:`~hpcplan.simulate.het_jobs.inherited`).

    Raises:
        SlurmError: the script would be refused, in sbatch's words.
    """
    _check_is_script(text)
    written: list[dict[str, Any]] = [{}]
    ours: dict[str, Any] = {}
    for number, line in enumerate(_header(text), start=1):
        if line.startswith("#SBATCH"):
            words = _words(line.removeprefix("#SBATCH"), number)
            if words and words[0] in {"hetjob", "packjob"}:
                written.append({})
                words = words[1:]
            written[-1] |= parse_options(words, version)
        elif (match := _OURS.fullmatch(line)) and match[1] in _PRETENCE:
            ours[_PRETENCE[match[1]]] = _pretence(match[1], match[2])
    known = {info.name for info in dataclasses.fields(JobSpec)}
    given: dict[str, Any] = {"name": name}
    specs = []
    for position in range(max(len(written), len(typed))):
        given = {**inherited(given), **(written[position] if position < len(written) else {})}
        given |= {**ours, **(everywhere or {}), **(typed[position] if position < len(typed) else {})}
        specs.append(JobSpec(**{key: value for key, value in given.items() if key in known}))
    return specs


def directives(text: str) -> Iterator[list[str]]:
    """Yield the words of each ``#SBATCH`` line.

    Raises:
        SlurmError: a quote that is not closed.
    """
    for number, line in enumerate(_header(text), start=1):
        if line.startswith("#SBATCH"):
            yield _words(line.removeprefix("#SBATCH"), number)


def _check_is_script(text: str) -> None:
    if not text.strip():
        raise SlurmError("sbatch: error: Batch script is empty!")
    if not text.startswith("#!"):
        raise SlurmError(
            "sbatch: error: This does not look like a batch script.  The first\n"
            "sbatch: error: line must start with #! followed by the path to an interpreter.\n"
            "sbatch: error: For instance: #!/bin/sh"
        )
    if "\r\n" in text:
        raise SlurmError(
            "sbatch: error: Batch script contains DOS line breaks (\\r\\n)\n"
            "sbatch: error: instead of expected UNIX line breaks (\\n)."
        )


def _header(text: str) -> Iterator[str]:
    """Yield the lines before the first command: comments and blank ones."""
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            return
        yield line


def _pretence(key: str, value: str) -> int:
    try:
        return max(0, round(float(value)))
    except (ValueError, OverflowError):
        raise SlurmError(f"the script's comment 'hpcplan: {key}={value}' needs a number") from None


def _words(line: str, number: int) -> list[str]:
    """Split a directive at its blanks; quotes keep them together, and ``#`` at the start of a word ends the line."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    for char in line:
        if quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif char == "#" and word is None:
            return words
        else:
            word = (word or "") + char
    if quote:
        raise SlurmError(f"sbatch: fatal: line {number}: Unmatched `{quote}` in [{line.strip()}]")
    return words if word is None else [*words, word]


def parse_options(words: list[str], version: str | None = None) -> dict[str, Any]:
    """Return the fields that command-line words give, read as getopt_long(3) reads them.

    Raises:
        SlurmError: an unknown option, a missing or impossible value, or a word that is no option.
    """
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--" or not word.startswith("-") or word == "-":
            raise SlurmError(f"sbatch: error: Invalid directive found in batch script: {word}")
        pairs = _long(word, rest, version) if word.startswith("--") else _short(word, rest)
        for option, value in pairs:
            given |= fields_of(option, value)
    return given


def _long(word: str, rest: list[str], version: str | None) -> list[tuple[Option, str | None]]:
    name, has_value, value = word[2:].partition("=")
    known = {option.name: option for option in OPTIONS if option.exists_in(version)}
    close = [name] if name in known else sorted(long for long in known if long.startswith(name))
    if not close:
        raise SlurmError(f"sbatch: unrecognized option '{word}'\n{_TRY}")
    if len(close) > 1:
        choices = " ".join(f"'--{choice}'" for choice in close)
        raise SlurmError(f"sbatch: option '{word}' is ambiguous; possibilities: {choices}\n{_TRY}")
    option = known[close[0]]
    if has_value:
        if option.argument == "none":
            raise SlurmError(f"sbatch: option '--{option.name}' doesn't allow an argument\n{_TRY}")
        return [(option, value)]
    if option.argument == "required":
        if not rest:
            raise SlurmError(f"sbatch: option '--{option.name}' requires an argument\n{_TRY}")
        return [(option, rest.pop(0))]
    return [(option, None)]


def _short(word: str, rest: list[str]) -> list[tuple[Option, str | None]]:
    """Read ``-N2``, ``-N 2`` or a bundle like ``-HN2``."""
    found: list[tuple[Option, str | None]] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = SHORT_OPTIONS.get(letter)
        if option is None:
            raise SlurmError(f"sbatch: invalid option -- '{letter}'\n{_TRY}")
        if option.argument != "required":
            found.append((option, letters or None if option.argument == "optional" else None))
            if option.argument == "optional":
                break
            continue
        if not letters and not rest:
            raise SlurmError(f"sbatch: option requires an argument -- '{letter}'\n{_TRY}")
        found.append((option, letters or rest.pop(0)))
        break
    return found
