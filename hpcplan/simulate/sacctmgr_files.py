"""Reads QOS and associations from what sacctmgr prints: ``sacctmgr dump CLUSTER`` and ``sacctmgr -P show qos``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.account_policy import AccountPolicy, Association, Limits, QosPolicy
from hpcplan.simulate.traces import text_lines
from hpcplan.units import parse_slurm_time

__all__ = ["read_accounting"]

_ENTITY: Final = re.compile(r"(Cluster|Parent|Account|User)\s*-\s*'?([^':]+)'?(.*)")
_PAIR: Final = re.compile(r":([A-Za-z]+)=('[^']*'|[^:]*)")
_SIZE: Final = re.compile(r"(\d+)([KMGTP]?)", re.IGNORECASE)
_MIB: Final = 1024**2
_POWERS: Final = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
# of a QOS, then of an association: sacctmgr's names in lower case, and the field of Limits
_TRES: Final = {
    "grptres": "group_tres", "maxtres": "job_tres", "maxtresperjob": "job_tres", "maxtrespu": "user_tres",
    "maxtresperuser": "user_tres", "maxtrespa": "account_tres", "maxtresperaccount": "account_tres",
    "grptresmins": "group_minutes", "grptresrunmins": "group_run_minutes", "maxtresmins": "job_minutes",
    "maxtresminsperjob": "job_minutes",
}  # fmt: skip
_COUNTS: Final = {
    "grpjobs": "group_jobs", "maxjobspu": "user_jobs", "maxjobsperuser": "user_jobs", "maxjobspa": "account_jobs",
    "maxjobs": "user_jobs", "grpsubmit": "group_submit", "grpsubmitjobs": "group_submit", "maxsubmit": "user_submit",
    "maxsubmitjobs": "user_submit", "maxsubmitpu": "user_submit", "maxsubmitjobspu": "user_submit",
    "maxsubmitjobsperuser": "user_submit", "maxsubmitpa": "account_submit", "maxsubmitjobspa": "account_submit",
    "maxsubmitjobsperaccount": "account_submit",
}  # fmt: skip
_WALLS: Final = {"maxwall": "job_wall_s", "maxwalldurationperjob": "job_wall_s", "grpwall": "group_wall_s"}


def read_accounting(*paths: Path) -> AccountPolicy:
    """Read any number of such files.

    Raises:
        InputError: not readable, neither of the two kinds, or a value that cannot be read; with file and line.
    """
    qos: dict[str, QosPolicy] = {}
    associations: list[Association] = []
    for path in paths:
        lines = list(text_lines(path))
        header = [word.strip().lower() for word in lines[0].split("|")] if lines else []
        if "name" in header and {"priority", "grptres"} & {*header}:
            for number, line in enumerate(lines[1:], start=2):
                if line.strip():
                    cells = dict(zip(header, line.rstrip("\r\n").split("|"), strict=False))
                    found = _qos(cells, path, number)
                    qos[found.name] = found
        elif any(_ENTITY.match(line) for line in lines):
            associations += _associations(lines, path)
        else:
            message = "is neither 'sacctmgr dump' of a cluster nor 'sacctmgr -P show qos'"
            raise InputError(Problem(message, file=str(path), line=1))
    return AccountPolicy(qos, tuple(associations))


def _qos(cells: Mapping[str, str], path: Path, line: int) -> QosPolicy:
    factor = cells.get("usagefactor", "")
    try:
        return QosPolicy(
            name=cells["name"].strip(),
            priority=int(cells.get("priority") or 0),
            limits=_limits(cells),
            preempts=tuple(word for word in cells.get("preempt", "").split(",") if word),
            preempt_mode=_mode(cells.get("preemptmode", "")),
            grace_time_s=parse_slurm_time(cells.get("gracetime", "")) or 0,
            preempt_exempt_s=parse_slurm_time(cells.get("preemptexempttime", "")),
            usage_factor=float(factor) if factor else 1.0,
        )
    except ValueError as error:
        raise InputError(Problem(str(error), file=str(path), line=line)) from None


def _mode(word: str) -> str | None:
    return None if word.lower() in {"", "cluster"} else word.lower()


def _associations(lines: list[str], path: Path) -> list[Association]:
    parent: str | None = None
    found = [Association("root")]
    for number, line in enumerate(lines, start=1):
        match = _ENTITY.match(line.strip())
        if match is None:
            continue
        kind, name, rest = match[1], match[2], match[3]
        pairs = {key.lower(): value.strip("'") for key, value in _PAIR.findall(rest)}
        if kind == "Parent":
            parent = name
        if kind in {"Parent", "Cluster"}:
            continue
        if parent is None:
            message = f"{kind} {name!r} comes before a line 'Parent - …'"
            raise InputError(Problem(message, file=str(path), line=number))
        shares = pairs.get("fairshare", pairs.get("shares", "1"))
        try:
            common: dict[str, Any] = {
                "shares": int(shares) if shares.isdecimal() else 1,
                "limits": _limits(pairs),
                "default_qos": pairs.get("defaultqos") or None,
            }
        except ValueError as error:
            raise InputError(Problem(str(error), file=str(path), line=number)) from None
        if kind == "Account":
            found.append(Association(name, parent=parent, **common))
        else:
            home = pairs.get("defaultaccount") == parent
            found.append(Association(parent, user=name, default_account=home, **common))
    return found


def _limits(pairs: Mapping[str, str]) -> Limits:
    found: dict[str, Any] = {}
    for key, value in pairs.items():
        if not value:
            continue
        if key in _TRES:
            found[_TRES[key]] = _tres(key, value)
        elif key in _COUNTS:
            found[_COUNTS[key]] = _count(key, value)
        elif key in _WALLS:
            found[_WALLS[key]] = parse_slurm_time(value)
    return Limits(**found)


def _count(key: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{key}: {value!r} is not a whole number")
    return int(value)


def _tres(key: str, value: str) -> dict[str, int]:
    found = {}
    for word in value.split(","):
        name, _, amount = word.partition("=")
        match = _SIZE.fullmatch(amount)
        if match is None:
            raise ValueError(f"{key}: {word!r} is not like cpu=100 or mem=10G")
        name = name.strip().lower()
        found[name] = round(int(match[1]) * _POWERS[match[2].upper()] * _MIB) if name == "mem" else int(match[1])
    return found
