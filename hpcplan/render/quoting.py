"""Making any text safe for a batch script: shell words, ``#SBATCH`` values, comments, and names that Slurm takes.

A script is read twice, by sbatch (its ``#SBATCH`` lines) and by bash. Nothing that a plan carries may end a word, a
line or a comment early in either.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hpcplan.units import format_slurm_time

__all__ = [
    "PLAIN",
    "absolute_path",
    "burst_buffer_line",
    "comment_text",
    "directive_value",
    "job_name",
    "json_text",
    "option_groups",
    "runtime_word",
    "shell_line",
    "shell_time",
    "shell_word",
    "shell_words",
    "toml_value",
    "variable_name",
    "yaml_block",
    "yaml_value",
]

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:=@%+,-]*")  # means the same to sbatch, to bash and to a reader
_DIRECTIVE: Final = re.compile(r"[A-Za-z0-9_.:=@+,/\[\]-]+")  # brackets are for hostlists
_PUZZLING: Final = re.compile(r"=")  # A==b is an assignment that every reader takes for a comparison
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES: Final = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\", "'": r"\'"}
_MAX_NAME: Final = 64  # the name is part of the log's file name, which file systems limit to 255 bytes
_MAX_COMMENT: Final = 200


def _encodable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no shell word can carry")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode text (a lone surrogate)") from None
    return text


def shell_word(text: str) -> str:
    r"""Return ``text`` as one bash word on one line; text with control characters becomes ``$'…\n…'``.

    Raises:
        ValueError: a NUL character or a lone surrogate; neither can be passed to a process.

    >>> shell_word("a b"), shell_word("a\nb")
    ("'a b'", "$'a\\nb'")
    """
    if not _CONTROL.search(_encodable(text)):
        return f"'{text}'" if _PUZZLING.match(text) and PLAIN.fullmatch(text) else shlex.quote(text)
    return "$'" + "".join(_ansi_c(char) for char in text) + "'"


def _ansi_c(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\{ord(char):03o}" if _CONTROL.match(char) else char


def shell_words(words: Iterable[str], staged: Sequence[str] = ()) -> str:
    """Return words quoted and joined by spaces.

    A word that names one of the paths ``staged``, or something below it, is written as the path of its copy, which
    stands under ``$HPCPLAN_STAGED_DATA``; so is the value of ``--option=PATH``.
    """
    return " ".join(_staged_word(word, staged) for word in words)


def _staged_word(word: str, staged: Sequence[str]) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not any(value == path or value.startswith(f"{path.rstrip('/')}/") or _names(value, path) for path in staged):
        return shell_word(word)
    before = shell_word(option) + equals if option else ""
    return f'{before}"$HPCPLAN_STAGED_DATA"{shell_word(value)}'


def _names(prefix: str, path: str) -> bool:
    """Whether a path is that prefix and a suffix, as data sets in two files are named: data, data.bin, data.idx."""
    return prefix.startswith("/") and path.startswith(f"{prefix}.") and "/" not in path[len(prefix) :]


def option_groups(words: Iterable[str]) -> list[tuple[str, ...]]:
    """Return words with each ``--option`` and its values together, for a script that has one a line."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return [tuple(group) for group in groups]


def shell_line(text: str) -> str:
    """Return shell code as it stands: a line that the site's file or the workload's file gives as code.

    Raises:
        ValueError: a NUL character, a lone surrogate, or a line break; code is given one line each.
    """
    if "\n" in text or "\r" in text:
        raise ValueError("holds a line break; give one shell line each")
    return _encodable(text)


def directive_value(text: object) -> str:
    """Return the value of an ``#SBATCH`` option.

    Nothing is quoted: what sbatch would have to unquote is refused, since its rules are not the shell's.

    Raises:
        ValueError: empty, or a character that sbatch or a hostlist has no use for.
    """
    word = str(text)
    if not _DIRECTIVE.fullmatch(word):
        raise ValueError(
            f"{word[:60]!r} cannot stand in an #SBATCH line; use letters, digits and _ . : = @ + , / [ ] -"
        )
    return word


def comment_text(text: object) -> str:
    """Return text for a comment: on one line, at most 200 characters, what does not print shown as ``?``."""
    line = "".join(char if char.isprintable() else "?" for char in str(text))
    return line if len(line) <= _MAX_COMMENT else line[: _MAX_COMMENT - 1] + "…"


def job_name(text: str, suffix: str = "") -> str:
    """Return a name that Slurm and file systems take: ASCII letters, digits, ``.``, ``_`` and ``-``, at most 64 long.

    >>> job_name("Llama 3 (70B) été", "-train-01")
    'Llama-3-70B-ete-train-01'
    """
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    legal = re.sub(r"[^A-Za-z0-9._]+", "-", ascii_only).strip("-.")
    return (legal[: _MAX_NAME - len(suffix)].rstrip("-.") or "campaign") + suffix


def variable_name(text: str) -> str:
    """Return the name of an environment variable as it stands.

    Raises:
        ValueError: not a name that a shell can assign to.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError(f"{text[:60]!r} is not the name of an environment variable (letters, digits and _)")
    return text


def shell_time(seconds: float) -> str:
    """Return a time limit for ``--time``: ``D-HH:MM:SS``."""
    return format_slurm_time(seconds)


def absolute_path(text: str) -> str:
    """Return an absolute path as it stands.

    Raises:
        ValueError: it is relative, or cannot be a shell word.
    """
    shell_word(text)
    if not text.startswith("/"):
        raise ValueError(f"{text[:60]!r} is not an absolute path")
    return text


def burst_buffer_line(text: str) -> str:
    """Return a burst buffer's directive as it stands.

    Raises:
        ValueError: not one line that begins with ``#BB``, ``#BB_LUA`` or ``#DW``.
    """
    if not re.fullmatch(r"#(?:BB|BB_LUA|DW) [ -~]+", text):
        raise ValueError(f"{text[:60]!r} is not a burst buffer's directive: #BB, #BB_LUA or #DW, on one line")
    return text


def json_text(value: Any) -> str:
    """Return plain data as JSON: mappings and lists over several lines, anything else on one."""
    indent = 2 if isinstance(value, Mapping | list | tuple) else None
    return json.dumps(value, indent=indent)


def toml_value(value: Any) -> str:
    """Return plain data as a TOML value (https://toml.io/en/v1.0.0): booleans, numbers, text, and lists of them.

    Raises:
        ValueError: something else.
    """
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(_encodable(value), ensure_ascii=False).replace("\x7f", r"\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise ValueError(f"{value!r} has no TOML form")


def runtime_word(text: str) -> str:
    """Return a word of a launcher's own in which ``$NAME`` is for the shell to expand: ``checkpoint.load=$DIR``."""
    return '"' + re.sub(r'(["`\\\\])', r"\\\1", text) + '"' if "$" in text else shell_word(text)


def yaml_value(value: Any) -> str:
    """Return a number, a boolean or text as a YAML value; text in double quotes, in ASCII (YAML 1.2, 5.7)."""
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + "".join(map(_yaml_char, _encodable(value))) + '"'


def _yaml_char(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if " " <= char <= "~":
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def yaml_block(text: str, indent: int = 2) -> str:
    """Return text as a YAML value: a literal block, or one quoted line where a block could not hold it as it is."""
    lines = text.split("\n")
    printable = all(line.isprintable() for line in lines) and not text.startswith((" ", "\n"))
    if not printable or not text.endswith("\n") or text.endswith("\n\n"):
        return yaml_value(text)
    return "|\n" + "\n".join(" " * indent + line if line else "" for line in lines[:-1])
