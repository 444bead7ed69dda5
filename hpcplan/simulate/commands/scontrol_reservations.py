"""scontrol's commands for reservations: create, update, delete and show (scontrol(1), RESERVATIONS)."""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hpcplan.errors import SlurmError
from hpcplan.hostlist import expand
from hpcplan.simulate.begin import begin_time
from hpcplan.simulate.commands.formatting import Clock, at_least, elapsed
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.sacct import moment_of
from hpcplan.simulate.controller import Controller as Slurmctld
from hpcplan.simulate.reservations import Reservation
from hpcplan.simulate.store import Session
from hpcplan.units import parse_slurm_time

__all__ = ["create", "delete", "reservation_block", "reservations_of", "sinfo_line", "update"]

_YEAR_S: Final = 365 * 86400
_NOT_CREATED: Final = "No reservation created."
_FLAGS: Final = (
    "ANY_NODES", "DAILY", "FLEX", "FORCE_START", "HOURLY", "IGNORE_JOBS", "MAGNETIC", "MAINT", "NO_HOLD_JOBS_AFTER",
    "OVERLAP", "PART_NODES", "PURGE_COMP", "REPLACE", "REPLACE_DOWN", "STATIC_ALLOC", "TIME_FLOAT", "WEEKDAY",
    "WEEKEND", "WEEKLY",
)  # fmt: skip
_KEYS: Final = {
    "reservation": "name", "reservationname": "name", "res": "name", "starttime": "start", "start": "start",
    "endtime": "end", "end": "end", "duration": "duration", "nodes": "nodes", "nodecnt": "count", "users": "users",
    "user": "users", "accounts": "accounts", "account": "accounts", "flags": "flags", "flags+": "flags+",
    "flags-": "flags-", "partitionname": "partition", "partition": "partition", "features": "features",
    "corecnt": "count", "groups": "users", "licenses": "licenses", "comment": "comment", "tres": "tres",
}  # fmt: skip


def reservations_of(session: Session) -> dict[str, Reservation]:
    """Return the reservations of the cluster by name; none where its policy knows none."""
    engine = session.engine
    return engine.reservations.by_name if isinstance(engine, Slurmctld) else {}


def _slurmctld(session: Session) -> Slurmctld:
    if not isinstance(session.engine, Slurmctld):
        raise Refusal(
            "Error creating the reservation: Requested operation is presently disabled\n"
            "(the mock cluster has reservations under '--policy slurm' alone)"
        )
    return session.engine


def create(session: Session, call: Call, rest: list[str]) -> None:
    """Make a reservation from ``key=value`` words.

    Raises:
        Refusal: in scontrol's words.
    """
    given = _read(rest, _NOT_CREATED)
    engine = _slurmctld(session)
    if "start" not in given and not {"daily", "time_float"} & set(given.get("flags", "").lower().split(",")):
        raise Refusal(f"scontrol: error: A start time must be given.  {_NOT_CREATED}")
    if "nodes" not in given and "count" not in given:
        raise Refusal(
            "scontrol: error: CoreCnt, Nodes, NodeCnt, BurstBuffer, Licenses or Watts must be specified.  "
            f"{_NOT_CREATED}"
        )
    if not given.get("users") and not given.get("accounts"):
        raise Refusal(
            f"scontrol: error: Either Users/Groups and/or Accounts must be specified.  {_NOT_CREATED}"
        )  # fmt: skip
    try:
        name = given.get("name") or _free_name(given, engine)
        if name in engine.reservations.by_name:
            raise SlurmError("Duplicate reservation name")
        empty = Reservation(name, 0, 0, 0)
        made = _changed(empty, given, session, call)
        _check_overlap(made, engine)
    except SlurmError as error:
        raise Refusal(f"Error creating the reservation: {error.message}") from None
    engine.reserve(made)
    call.reply.say(f"Reservation created: {name}")


def update(session: Session, call: Call, rest: list[str]) -> None:
    """Change a reservation.

    Raises:
        Refusal: in scontrol's words.
    """
    given = _read(rest, "No reservation update.")
    engine = _slurmctld(session)
    try:
        old = engine.reservations.by_name.get(given.get("name", ""))
        if old is None:
            raise SlurmError("Requested reservation is invalid")
        made = _changed(old, given, session, call)
        _check_overlap(made, engine)
    except SlurmError as error:
        raise Refusal(f"Error updating the reservation: {error.message}\nslurm_update error: {error.message}") from None
    engine.reserve(made)
    call.reply.say("Reservation updated.")


def delete(session: Session, word: str, name: str) -> None:
    """Delete a reservation that no job has.

    Raises:
        Refusal: in scontrol's words.
    """
    engine = _slurmctld(session)
    if name not in engine.reservations.by_name:
        raise Refusal(f"delete_reservation {word}: Requested reservation is invalid")
    if any(job.spec.reservation == name for job in engine.jobs.values()):
        raise Refusal(f"delete_reservation {word}: Requested reservation is in use")
    engine.unreserve(name)


def _read(rest: list[str], failed: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        known = _KEYS.get(key.lower())
        if known is None or not equals:
            if not equals and key.lower() == "reservation":
                continue
            raise Refusal(f"scontrol: error: Unknown parameter {word}.  {failed}")
        if known == "duration" and _duration(value) is None:
            raise Refusal(f"scontrol: error: Invalid duration {word}.  {failed}")
        given[known] = value
    return given


def _duration(text: str) -> int | None:
    """Return the seconds of ``30`` (minutes), ``2:00:00``, ``infinite``; ``None`` for what is none."""
    if text.lower() in {"infinite", "unlimited", "-1"}:
        return _YEAR_S
    try:
        return parse_slurm_time(text)
    except ValueError:
        return None


def _free_name(given: Mapping[str, str], engine: Slurmctld) -> str:
    owner = (given.get("users") or given.get("accounts") or "resv").split(",")[0]
    number = 1
    while f"{owner}_{number}" in engine.reservations.by_name:
        number += 1
    return f"{owner}_{number}"


def _changed(old: Reservation, given: Mapping[str, str], session: Session, call: Call) -> Reservation:
    """Return the reservation with what is given.

    Raises:
        SlurmError: a user, a time or nodes that are not there.
    """
    engine = session.engine
    start = _time(given["start"], engine.now) if "start" in given else old.start_s
    length = _duration(given["duration"]) if "duration" in given else None
    if "end" in given:
        end = _time(given["end"], engine.now)
    elif length is not None:
        end = start + length
    else:
        end = old.end_s + start - old.start_s if old.end_s else start + _YEAR_S
    if end <= start:
        raise SlurmError("Reservation request is invalid")
    flags = _flags(old.flags, given)
    users = _users(given["users"]) if "users" in given else old.users
    accounts = _words(given["accounts"]) if "accounts" in given else old.accounts
    partition = given.get("partition", old.partition)
    if partition is not None and partition not in session.machine.partitions:
        raise SlurmError("Invalid partition name specified")
    made = replace(
        old, start_s=start, end_s=end, users=users, accounts=accounts, partition=partition, flags=flags
    )  # fmt: skip
    if "nodes" in given:
        return _with_nodes(made, given["nodes"], session)
    if "count" in given:
        return replace(made, nodes=_pick(made, int(re.sub(r"\D.*", "", given["count"]) or 0), session))
    return made


def _with_nodes(made: Reservation, text: str, session: Session) -> Reservation:
    machine = session.machine
    everything = text.upper() == "ALL"
    try:
        nodes = machine.all_nodes if everything else machine.mask_of(expand(text))
    except (KeyError, ValueError):
        raise SlurmError("Invalid node name specified") from None
    if everything and made.partition is not None:
        nodes = machine.partitions[made.partition].mask
    named = ["SPEC_NODES", *(["ALL_NODES"] if everything else [])]
    return replace(made, nodes=nodes, flags=tuple(dict.fromkeys([*made.flags, *named])))


def _pick(made: Reservation, count: int, session: Session) -> int:
    """Return the first nodes that no other reservation has then, nor a job that may run until then."""
    from hpcplan.simulate.machine import lowest

    engine = session.engine
    partition = session.machine.partitions[made.partition or session.machine.default_partition()]
    free = partition.mask & engine.available
    for other in reservations_of(session).values():
        if other.name != made.name and other.start_s < made.end_s and made.start_s < other.end_s:
            free &= ~other.nodes
    if "IGNORE_JOBS" not in made.flags:
        for job in engine.running.values():
            if job.limit_end > made.start_s:
                free &= ~job.nodes
    if free.bit_count() < count or not count:
        raise SlurmError("Requested nodes are busy")
    return lowest(free, count)


def _check_overlap(made: Reservation, engine: Slurmctld) -> None:
    """Refuse nodes that another reservation has then, or jobs may still have.

    Raises:
        SlurmError: in slurmctld's words.
    """
    if {"OVERLAP", "MAINT"} & set(made.flags):
        return
    for other in engine.reservations.by_name.values():
        if (
            other.name != made.name and other.nodes & made.nodes and not {"OVERLAP", "MAINT"} & set(other.flags)
            and other.start_s < made.end_s and made.start_s < other.end_s
        ):  # fmt: skip
            raise SlurmError("Requested reservation overlaps with another reservation")
    if "IGNORE_JOBS" not in made.flags and any(
        job.nodes & made.nodes and job.limit_end > made.start_s and job.spec.reservation != made.name
        for job in engine.running.values()
    ):
        raise SlurmError("Requested nodes are busy")


def _flags(old: tuple[str, ...], given: Mapping[str, str]) -> tuple[str, ...]:
    flags = list(old)
    for key in ("flags", "flags+", "flags-"):
        for word in _words(given.get(key, "")):
            sign = word[0] if word[0] in "+-" else key[5:]
            name = word.lstrip("+-").upper()
            close = [flag for flag in _FLAGS if flag.startswith(name) or flag.replace("_", "").startswith(name)]
            if not close:
                raise SlurmError("Invalid reservation flags")
            name = name if name in close else close[0]
            flags = [flag for flag in flags if flag != name] + ([] if sign == "-" else [name])
    order = ("MAINT", "OVERLAP", "IGNORE_JOBS", "DAILY", "WEEKLY")
    return tuple(sorted(flags, key=lambda flag: order.index(flag) if flag in order else len(order)))


def _users(text: str) -> tuple[str, ...]:
    names = _words(text)
    for name in names:
        try:
            pwd.getpwnam(name.lstrip("+-"))
        except KeyError:
            raise SlurmError("Invalid user id") from None
    return names


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _time(text: str, now: int) -> int:
    try:
        return begin_time(text, now) or now
    except SlurmError:
        try:
            return moment_of(text, now)
        except Refusal as error:
            raise SlurmError(error.message) from None


# what is shown --------------------------------------------------------------------------------------------------------


def reservation_block(session: Session, one: Reservation, clock: Clock) -> list[str]:
    """Return the lines of one reservation."""
    machine = session.machine
    cores = machine.total(one.nodes, "cpus")
    version = session.settings.slurm_version
    extras = "BurstBuffer=(null)" if at_least(version, "24.05") else "BurstBuffer=(null) Watts=n/a"
    return [
        (
            f"ReservationName={one.name} StartTime={clock.moment(one.start_s)} EndTime={clock.moment(one.end_s)} "
            f"Duration={elapsed(one.end_s - one.start_s)}"
        ),
        (
            f"Nodes={machine.node_list(one.nodes)} NodeCnt={one.nodes.bit_count()} CoreCnt={cores} Features=(null) "
            f"PartitionName={one.partition or '(null)'} Flags={','.join(one.flags)}"
        ),
        f"TRES=cpu={cores}",
        (
            f"Users={','.join(one.users) or '(null)'} Groups=(null) Accounts={','.join(one.accounts) or '(null)'} "
            f"Licenses=(null) State={_state(one, session.engine.now)} {extras}"
        ),
        "MaxStartDelay=(null)",
    ]


def sinfo_line(session: Session, one: Reservation, clock: Clock) -> str:
    """Return the line of ``sinfo -T``."""
    return (
        f"{one.name:<10} {_state(one, session.engine.now):>8}  {clock.moment(one.start_s):>19}  "
        f"{clock.moment(one.end_s):>19}  {elapsed(one.end_s - one.start_s):>11}  {session.machine.node_list(one.nodes)}"
    )


def _state(one: Reservation, now: int) -> str:
    return "ACTIVE" if one.start_s <= now < one.end_s else "INACTIVE"
