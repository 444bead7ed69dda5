"""How a release of Slurm writes its ``--json``: which data parsers it has, and the document that they make.

From 23.02 on Slurm's commands write JSON through plugins with an API version each (v0.0.39 and later), whose answers
differ from release to release; before, 22.05 had the one shape of :mod:`.job_json`. A document is put together here in
the newest shape, with numbers as :class:`Number`, and :mod:`.json_shapes` says how earlier versions differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from hpcplan.simulate.commands.formatting import at_least, release
from hpcplan.simulate.commands.json_shapes import INFINITE, Number, reshape
from hpcplan.simulate.commands.options import Flag, Words
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.store import Session

__all__ = ["Parser", "exit_code", "json_flags", "parser_of", "say_json", "yaml_text"]

_PARSERS: Final = {  # the versions of the API that each release's commands can write
    "23.02": (39,), "23.11": (39, 40), "24.05": (39, 40, 41), "24.11": (40, 41, 42), "25.05": (40, 41, 42, 43),
    "25.11": (41, 42, 43, 44), "26.05": (42, 43, 44, 45),
}  # fmt: skip
_FORMATS: Final = {"json": "application/json", "yaml": "application/x-yaml"}


@dataclass(frozen=True, slots=True)
class Parser:
    """A data parser as it was asked for: the last part of its version, and its flags as they were typed."""

    version: int
    flags: str = ""

    @property
    def is_old(self) -> bool:
        """Whether this is the one shape of 22.05, which no data parser writes."""
        return self.version < 39

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers are bare, and what is not set is ``null`` (``+complex``)."""
        return "complex" in self.flags.split("+")

    @property
    def name(self) -> str:
        """The name of the plugin."""
        return f"data_parser/v0.0.{self.version}{self.flags}"


def _known(version: str) -> tuple[int, ...]:
    """Return the API versions of a release, none before 23.02."""
    return next((found for since, found in reversed(_PARSERS.items()) if at_least(version, since)), ())


def json_flags(version: str, *, since: str = "21.08") -> tuple[Flag, ...]:
    """Return the options ``--json`` and ``--yaml`` of a release: from 23.11 on they can name a parser."""
    if not at_least(version, since):
        return ()
    return tuple(Flag(name, argument="optional" if at_least(version, "23.11") else "none") for name in _FORMATS)


def parser_of(command: str, words: Words, version: str, call: Call) -> Parser | None:
    """Return the parser that ``--json`` (or ``--yaml``) asks for; ``None`` where it has been answered already.

    A ``Parser(38)`` stands for the shape of 22.05.

    Raises:
        Refusal: there is no such parser, in the command's words.
    """
    known = _known(version)
    asked = next((words.last(name) for name in _FORMATS if words.last(name)), None)
    if asked is None or not known:
        return Parser(known[-1] if known else 38)
    if asked == "list":
        call.reply.complain("Possible data_parser plugins:")
        for number in known:
            call.reply.say(Parser(number).name)
        return None
    name, plus, rest = asked.removeprefix("data_parser/").partition("+")
    for number in known:
        if name == f"v0.0.{number}":
            return Parser(number, plus + rest)
    wanted = next(kind for option, kind in _FORMATS.items() if option in words)
    raise Refusal(
        f"{command}: error: load_plugins: unable to find plugin: data_parser/{asked}\n"
        f"{command}: error: data_parser_g_new: failure loading plugins: Plugin has invalid format or unable to be "
        f"loaded\n{command}: error: {wanted} output not supported by {Parser(known[-1]).name}",
        0 if command == "sacct" else 1,
    )


def exit_code(code: int, number: int, *, pending: bool = False) -> dict[str, Any]:
    """Return how a job or step ended: its exit code, or the signal that ended it."""
    import signal

    name = signal.Signals(number).name[3:] if number in list(signal.Signals) else str(number) if number else ""
    status = "PENDING" if pending else "SIGNALED" if number else "ERROR" if code else "SUCCESS"
    return {
        "status": [status],
        "return_code": Number(None if number and not code else code),
        "signal": {"id": Number(number or None), "name": name},
    }


def say_json(
    call: Call,
    session: Session,
    parser: Parser,
    words: Words,
    rows: Iterable[dict[str, Any]],
    kind: str,
    *,
    key: str | None = None,
    times: Iterable[str] = ("last_update",),
) -> None:
    """Print a document of ``rows`` in a parser's shape, under ``key`` (else the name of their kind)."""
    key = key or kind
    document: dict[str, Any] = {key: [reshape(row, kind, parser.version) for row in rows]}
    if parser.version < 40:  # 23.02 tells no times of what it lists
        document = {"meta": _meta(call, session, parser), **document}
    else:
        document |= {name: Number(session.engine.now) for name in times} | {"meta": _meta(call, session, parser)}
    empty = kind in {"jobs", "licenses"} and not document[key]
    warnings = [{"description": f"Zero {key} to dump", "source": ""}] if empty else []
    written = _written(document | {"errors": [], "warnings": warnings}, parser)
    if "yaml" in words:
        call.reply.out += yaml_text(written)
        return
    call.reply.say(json.dumps(written, indent=None if "fast" in parser.flags.split("+") else 2))


def _meta(call: Call, session: Session, parser: Parser) -> dict[str, Any]:
    version = release(session.settings.slurm_version)
    major, minor, micro = version.split(".")[:3]
    typed = [call.command, *call.words]
    if call.command == "scontrol":
        typed = [word for word in call.words if not word.startswith("-")]
    storage = {"data_parser": parser.name, "accounting_storage": "accounting_storage/slurmdbd"}
    if parser.version < 40:
        numbers = {"major": int(major), "micro": int(micro), "minor": int(minor)}
        plugins = {**storage, "data_parser": f"v0.0.{parser.version}"}
        return {"plugins": plugins, "command": typed, "Slurm": {"release": version, "version": numbers}}
    return {
        "plugin": {"type": "", "name": "", **storage},
        "client": {"source": "", "user": call.user, "group": _group(call.gid)},
        "command": typed[:-1],  # so it is
        "slurm": {
            "version": {"major": major, "micro": micro, "minor": minor},
            "release": version,
            "cluster": session.settings.cluster,
        },
    }


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _written(value: Any, parser: Parser) -> Any:
    """Return a value with its numbers as the parser writes them."""
    if isinstance(value, Number):
        infinite = value.value == INFINITE
        if parser.plain_numbers:
            return "Infinity" if infinite else value.value
        return {"set": value.value is not None and not infinite, "infinite": infinite, "number": value.plain}
    if isinstance(value, dict):
        return {key: _written(inner, parser) for key, inner in value.items()}
    if isinstance(value, list):
        return [_written(inner, parser) for inner in value]
    return None if value == "" and parser.plain_numbers else value


def yaml_text(document: dict[str, Any]) -> str:
    """Return a document as Slurm's YAML has it, each value with its tag."""
    return "%YAML 1.1\n---" + "".join(_yaml(document, 0)) + "\n...\n"


_TAGS: Final = {bool: "!!bool", int: "!!int", float: "!!float", str: "!!str", type(None): "!!null"}


def _yaml(value: Any, depth: int) -> Iterable[str]:
    if isinstance(value, dict):
        yield " !!map" if value else " !!map {}"
        for key, inner in value.items():
            yield f"\n{'  ' * depth}!!str {key}:"
            yield from _yaml(inner, depth + (0 if isinstance(inner, list) else 1))
    elif isinstance(value, list):
        yield " !!seq" if value else " !!seq []"
        for inner in value:
            yield f"\n{'  ' * depth}-"
            yield from _yaml(inner, depth + 1)
    else:
        text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
        if (isinstance(value, str) and value != value.strip()) or any(sign in text for sign in ":#\n'\"[]{}"):
            text = json.dumps(text)
        yield f" {_TAGS[type(value)]} {text}".rstrip()
