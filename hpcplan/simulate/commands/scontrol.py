"""scontrol(1)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from hpcplan.simulate.commands import scontrol_partitions as partitions
from hpcplan.simulate.commands import scontrol_reservations as reservations
from hpcplan.simulate.commands import scontrol_update as update
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.data_parser import json_flags, parser_of, say_json
from hpcplan.simulate.commands.formatting import Clock, elapsed, release
from hpcplan.simulate.commands.json_jobs import step_document
from hpcplan.simulate.commands.json_nodes import node_document, partition_document, reservation_document
from hpcplan.simulate.commands.options import Words, flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.rows import read_target
from hpcplan.simulate.commands.scontrol_jobs import block, job_block, step_block
from hpcplan.simulate.commands.scontrol_show import (
    config_lines,
    hostlist_words,
    hostname_words,
    node_block,
    nodes_named,
    partition_block,
    topology_lines,
)
from hpcplan.simulate.commands.squeue import controller_rows, say_jobs
from hpcplan.simulate.store import Session

__all__ = ["scontrol"]

_TABLE: Final = flags(
    "clusters:M uid:u",
    "all:a details:d federation:F future help:h hide local oneliner:o quiet:Q sibling verbose:v version:V",
)
Action = Callable[[Controller, Call, Words, list[str]], None]


def scontrol(controller: Controller, connection: Any, call: Call) -> int:
    """Show and change what the controller knows."""
    version = controller.store.settings().slurm_version
    table = (*_TABLE, *json_flags(version, since="23.02"))
    words = read_words("scontrol", call.words, table)
    if "help" in words:
        call.reply.say(usage("scontrol", table, "COMMAND [WORD ...]"))
        return 0
    if not words.rest:
        raise Refusal("scontrol: error: the mock cluster has no interactive mode; give a command")
    keyword, *rest = words.rest
    name = _keyword(keyword.lower())
    if name is None:
        raise Refusal(f"invalid keyword: {keyword}")
    _ACTIONS[name](controller, call, words, rest)
    return call.reply.code


def _keyword(word: str) -> str | None:
    """Return the command that a word means: it may be shortened to three letters or so."""
    if word in _ACTIONS:
        return word
    close = [name for name in _ACTIONS if name.startswith(word) and len(word) >= 3]
    return close[0] if close else None


# show ---------------------------------------------------------------------------------------------------------------


def _show(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    if not rest:
        raise Refusal("too few arguments for keyword:show")
    entity, identity = rest[0].lower(), rest[1] if len(rest) > 1 else None
    head, given, value = entity.partition("=")
    if given:  # 'show job=12'
        entity, identity = head, rest[0].partition("=")[2] or value
    for names, action in _ENTITIES:
        if any((name.startswith(entity) and len(entity) >= 3) or name == entity for name in names):
            action(controller, call, words, identity)
            return
    raise Refusal(f"invalid entity:{rest[0]} for keyword:show ")


def _show_job(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    clock, one_line = Clock(call.env), "oneliner" in words
    with controller.session() as session:
        rows = controller_rows(controller, session)
        if identity is not None:
            target = read_target(identity)
            if target is None:
                raise Refusal("scontrol_print_job error: Invalid job id specified")
            if target.tasks is not None:
                rows = controller_rows(controller, session, whole_arrays=False)
            rows = [row for row in rows if row.is_meant(target)]
            if not rows and target.tasks is not None:
                call.reply.say(f"Job {identity} not found")
                call.reply.code = 1
                return
            if not rows:
                raise Refusal("slurm_load_jobs error: Invalid job id specified")
            if len(rows) > 1 and target.tasks is None:  # of an array that of its own id first, then the newest
                rows.sort(key=lambda row: (row.record.job_id != row.record.array_job_id, -row.record.job_id))
        if _is_json(words):
            say_jobs(call, session, words, rows)
            return
        if not rows:
            call.reply.say("No jobs in the system")
        for row in rows:
            call.reply.out += block(job_block(session, row, clock, detail="details" in words), one_line=one_line)


def _is_json(words: Words) -> bool:
    return "json" in words or "yaml" in words


def _say(
    call: Call, session: Session, words: Words, documents: Iterable[dict[str, Any]], kind: str, *times: str
) -> None:
    parser = parser_of("scontrol", words, session.settings.slurm_version, call)
    if parser is not None:
        say_json(call, session, parser, words, documents, kind, times=times)


def _show_step(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    clock, one_line = Clock(call.env), "oneliner" in words
    target = read_target(identity) if identity is not None else None
    if identity is not None and target is None:
        raise Refusal(f"scontrol: error: Invalid job id specified: {identity}")
    with controller.session() as session:
        rows = controller_rows(controller, session, whole_arrays=False)
        if target is not None:
            rows = [row for row in rows if row.is_meant(target)]
            if not rows:
                raise Refusal("slurm_get_job_steps error: Invalid job id specified")
        found = [
            (row, step)
            for row in rows
            for step in row.steps
            if step.end is None and (target is None or target.step in (None, step.name))
        ]
        if _is_json(words):
            _say(call, session, words, (step_document(*one) for one in found), "steps", "last_update")
            return
        for row, step in found:
            call.reply.out += block(step_block(row, step, clock), one_line=one_line)
    if not call.reply.out and target is not None:
        call.reply.say(f"Job step {identity} not found")
        call.reply.code = 1


def _show_node(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    clock = Clock(call.env)
    with controller.session() as session:
        try:
            found = nodes_named(session, identity)
        except KeyError as error:
            call.reply.say(f"Node {error.args[0]} not found")
            call.reply.code = 1
            return
        if _is_json(words):
            _say(call, session, words, (node_document(session, *one) for one in found), "nodes", "last_update")
            return
        for node, group in found:
            call.reply.out += block(
                node_block(session, node, group, clock, detail="details" in words), one_line="oneliner" in words
            )


def _show_partition(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    with controller.session() as session:
        machine = session.machine
        if identity is not None and identity not in machine.partitions:
            call.reply.say(f"Partition {identity} not found")
            call.reply.code = 1
            return
        named = [part for name, part in machine.partitions.items() if identity in (None, name)]
        if _is_json(words):
            documents = (partition_document(session, part) for part in named)
            _say(call, session, words, documents, "partitions", "last_update")
            return
        for part in named:
            lines = partition_block(machine, part, session.settings.slurm_version)
            call.reply.out += block(lines, one_line="oneliner" in words)


def _show_config(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    with controller.session() as session:
        for line in config_lines(controller, session, Clock(call.env)):
            call.reply.say(line)


def _show_hostnames(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    for name in hostname_words(call, identity):
        call.reply.say(name)


def _show_hostlist(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    call.reply.say(hostlist_words(identity, in_order=False))


def _show_sorted(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    call.reply.say(hostlist_words(identity, in_order=True))


def _show_topology(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    text = (controller.store.directory / "site.json").read_text(encoding="utf-8")
    for line in topology_lines(text, identity.partition("=")[2] or identity if identity else None):
        call.reply.say(line)


def _show_reservation(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    clock = Clock(call.env)
    with controller.session() as session:
        found = reservations.reservations_of(session)
        if identity is not None and identity not in found:
            call.reply.say(f"Reservation {identity} not found")
            call.reply.code = 1
            return
        if _is_json(words):
            named = [one for name, one in found.items() if identity in (None, name)]
            documents = (reservation_document(session, one) for one in named)
            _say(call, session, words, documents, "reservations", "last_update")
            return
        if not found:
            call.reply.say("No reservations in the system")
        for name, one in found.items():
            if identity in (None, name):
                lines = reservations.reservation_block(session, one, clock)
                call.reply.out += block(lines, one_line="oneliner" in words)


def _show_licenses(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
    if _is_json(words):
        with controller.session() as session:
            _say(call, session, words, [], "licenses", "last_update")
        return
    call.reply.say("No licenses configured in Slurm.")


def _shows(*lines: str) -> Callable[[Controller, Call, Words, str | None], None]:
    """Return what shows the same lines always: of what a cluster has none of, as Slurm does, often nothing."""

    def show(controller: Controller, call: Call, words: Words, identity: str | None) -> None:
        call.reply.out += "".join(f"{line}\n" for line in lines)

    return show


_ENTITIES: Final = (
    (("jobs", "job", "jobid"), _show_job),
    (("nodes", "node", "nodename"), _show_node),
    (("partitions", "partition", "partitionname"), _show_partition),
    (("configuration", "config"), _show_config),
    (("hostnames", "hostname"), _show_hostnames),
    (("hostlistsorted",), _show_sorted),
    (("hostlist",), _show_hostlist),
    (("steps", "step", "stepid"), _show_step),
    (("topology",), _show_topology),
    (("reservations", "reservation", "reservationname"), _show_reservation),
    (("licenses",), _show_licenses),
    (("federation", "bbstat", "dwstat", "burstbuffer", "aliases"), _shows()),
    (("assoc_mgr",), _shows("Current Association Manager state")),
    (("frontend",), _shows("No nodes in the system")),
    (("daemons",), _shows("slurmctld slurmd")),
)


# the rest -----------------------------------------------------------------------------------------------------------


def _ping(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    host = socket.gethostname()
    if _is_json(words):
        ping = {"hostname": host, "pinged": "UP", "responding": True, "latency": 0, "mode": "primary", "primary": True}
        with controller.session() as session:
            _say(call, session, words, [ping], "pings")
        return
    call.reply.say(f"Slurmctld(primary) at {host} is UP")


def _version(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    call.reply.say(f"slurm {release(controller.store.settings().slurm_version)}")


def _write(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    if len(rest) < 2 or rest[0].lower() != "batch_script":
        raise Refusal("invalid write argument")
    target = read_target(rest[1])
    if target is None or not controller.files.script(target.job_id).is_file():
        raise Refusal(
            "scontrol: error: Invalid job id specified"
            if target is None
            else "job script retrieval failed: Invalid job id specified"
        )
    text = controller.files.script(target.job_id).read_text(encoding="utf-8", errors="surrogateescape")
    name = rest[2] if len(rest) > 2 else f"slurm-{target.job_id}.sh"
    if name == "-":
        call.reply.out += text
        return
    path = Path(os.path.join(call.cwd, name))  # noqa: PTH118
    try:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise Refusal(f"failed to open file `{name}`: {error.strerror}") from None
    call.reply.say(f"batch script for job {target.job_id} written to {name}")


def _wait_job(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Nodes are ready as soon as a job starts here."""
    if not rest or not rest[0].isdecimal():
        raise Refusal("scontrol: error: invalid job id")


def _create(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    if not rest:
        raise Refusal("too few arguments for create keyword")
    kind = _entity(rest[0])
    if kind is None:
        raise Refusal(f"scontrol: error: Invalid creation entity: {rest[0]}")
    with controller.session() as session:
        if kind == "partition":
            partitions.create(session, [(key.lower(), value) for key, _, value in (w.partition("=") for w in rest)])
        else:
            reservations.create(session, call, rest)
    controller.wake()


def _delete(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    if not rest:
        raise Refusal("too few arguments for delete keyword")
    kind, name = _entity(rest[0]), rest[0].partition("=")[2] or (rest[1] if len(rest) > 1 else "")
    if kind is None:
        raise Refusal(f"Invalid deletion entity: {rest[0]}")
    with controller.session() as session:
        if kind == "partition":
            partitions.delete(session, rest[0], name)
        else:
            reservations.delete(session, rest[0], name)
    controller.wake()


def _entity(word: str) -> str | None:
    """Return ``partition`` or ``reservation``, whichever a word of create or delete begins with."""
    name = word.partition("=")[0].lower()
    for entity in ("partitionname", "reservationname"):
        if len(name) >= 3 and entity.startswith(name):
            return entity.removesuffix("name")
    return None


def _nothing(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """Commands that ask the daemons for what a mock cluster always does."""


def _completing(controller: Controller, call: Call, words: Words, rest: list[str]) -> None:
    """List the jobs that have ended but for processes on their nodes."""
    with controller.session() as session:
        for row in controller_rows(controller, session):
            if row.ending is not None:
                ended = row.ending[1]
                call.reply.say(
                    f"JobId={row.record.job_id} EndTime={Clock(call.env).moment(ended)} "
                    f"CompletingTime={elapsed(row.now - ended)} Nodes(COMPLETING)={row.node_list} "
                )


_ACTIONS: Final[dict[str, Action]] = {
    "show": _show,
    "ping": _ping,
    "version": _version,
    "write": _write,
    "wait_job": _wait_job,
    "hold": update.hold,
    "uhold": update.hold,
    "release": update.release,
    "requeue": update.requeue,
    "requeuehold": update.requeue_hold,
    "suspend": update.suspend,
    "resume": update.resume,
    "update": update.update,
    "create": _create,
    "delete": _delete,
    "top": update.top,
    "listpids": update.list_pids,
    "completing": _completing,
    "reconfigure": _nothing,
    "setdebug": _nothing,
}
