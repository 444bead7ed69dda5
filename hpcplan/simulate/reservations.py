"""Reservations of nodes (scontrol(1), ``create reservation``): who may use which nodes, and when nobody else may."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import strptime
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import expand
from hpcplan.simulate.admission import refusal
from hpcplan.simulate.traces import text_lines

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, JobSpec
    from hpcplan.simulate.machine import Machine

__all__ = ["Reservation", "Reservations", "licenses_of", "read_reservations", "refuse_unknown"]

_PAIR: Final = re.compile(r"(\w+)=(\S*)")


@dataclass(frozen=True, slots=True)
class Reservation:
    """``nodes`` (a mask) from ``start_s`` until ``end_s``, for these users and accounts; nobody for maintenance."""

    name: str
    start_s: int
    end_s: int
    nodes: int
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    partition: str | None = None
    flags: tuple[str, ...] = ()

    def admits(self, user: str, account: str | None) -> bool:
        """Whether a user's job in an account may ask for it."""
        return user in self.users or (account is not None and account in self.accounts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` is its inverse."""
        return {
            "name": self.name, "start_s": self.start_s, "end_s": self.end_s, "nodes": hex(self.nodes),
            "users": list(self.users), "accounts": list(self.accounts), "partition": self.partition,
            "flags": list(self.flags),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reservation:
        """Return the reservation of :meth:`as_dict`."""
        users, accounts = tuple(data["users"]), tuple(data["accounts"])
        more = data.get("partition"), tuple(data.get("flags", ()))
        return cls(data["name"], data["start_s"], data["end_s"], int(data["nodes"], 16), users, accounts, *more)


class Reservations:
    """The reservations of one cluster."""

    def __init__(self, found: Iterable[Reservation] = ()) -> None:
        self.by_name = {one.name: one for one in found}

    def __bool__(self) -> bool:
        return bool(self.by_name)

    def usable(self, job: Job, now: int, nodes: int) -> int:
        """Return those of ``nodes`` that the job may have from now on for as long as its limit."""
        if not self.by_name:
            return nodes
        own = self.by_name.get(job.spec.reservation or "")
        if job.spec.reservation is not None:
            if own is None or not own.start_s <= now < own.end_s or not own.admits(job.user, job.spec.account):
                return 0
            nodes &= own.nodes
        for one in self.by_name.values():
            if one is not own and one.start_s < now + job.request.limit_s and now < one.end_s:
                nodes &= ~one.nodes
        return nodes

    def next_change(self, now: int) -> int | None:
        """Return when the next one begins or ends."""
        times = [time for one in self.by_name.values() for time in (one.start_s, one.end_s) if time > now]
        return min(times, default=None)


def licenses_of(text: str | None) -> list[tuple[str, int]]:
    """Return (name, count) of ``matlab:2,ansys``."""
    found = []
    for word in (text or "").lower().split(","):
        name, _, count = word.strip().partition(":")
        if name:
            found.append((name, int(count) if count.isdecimal() else 1))
    return found


def refuse_unknown(spec: JobSpec, user: str, licenses: Mapping[str, int], reservations: Reservations) -> None:
    """Refuse a job that asks for licences that there are not, or for a reservation that is not its user's.

    Raises:
        SlurmError: in sbatch's words.
    """
    if any(licenses.get(name, 0) < count for name, count in licenses_of(spec.licenses)):
        raise refusal("Invalid license specification")
    if spec.reservation is not None:
        own = reservations.by_name.get(spec.reservation)
        if own is None:
            raise refusal("Requested reservation is invalid")
        if not own.admits(user, spec.account):
            raise refusal("Access denied to requested reservation")


def read_reservations(path: Path, machine: Machine) -> Reservations:
    """Read what ``scontrol show reservation`` prints; times are unix seconds, or dates as if in UTC.

    Raises:
        InputError: not readable, or a reservation without a name, times or known nodes; with file and line.
    """
    found = []
    records: list[tuple[int, dict[str, str]]] = []
    for number, line in enumerate(text_lines(path), start=1):
        pairs = dict(_PAIR.findall(line))
        if "ReservationName" in pairs:
            records.append((number, {}))
        elif pairs and not records:
            raise InputError(Problem("does not begin with ReservationName=…", file=str(path), line=number))
        if records:
            records[-1][1].update(pairs)
    for number, pairs in records:
        try:
            found.append(
                Reservation(
                    pairs["ReservationName"],
                    _time(pairs["StartTime"]),
                    _time(pairs["EndTime"]),
                    machine.mask_of(expand(pairs["Nodes"])),
                    _names(pairs.get("Users", "")),
                    _names(pairs.get("Accounts", "")),
                )
            )
        except (KeyError, ValueError) as error:
            message = f"the reservation cannot be used: {str(error).strip(chr(39))}"
            raise InputError(Problem(message, file=str(path), line=number)) from None
    return Reservations(found)


def _time(word: str) -> int:
    return int(word) if word.lstrip("-").isdecimal() else timegm(strptime(word, "%Y-%m-%dT%H:%M:%S"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word and word != "(null)")
