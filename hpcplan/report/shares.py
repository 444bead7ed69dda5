"""Fairshare's targets: what ``sshare --parsable2`` says, or a file of ``account,share`` lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcplan.errors import InputError, Problem
from hpcplan.report.rows import Share, Usage

__all__ = ["beside_use", "parse_shares", "read_shares"]


def read_shares(path: Path) -> dict[str, float]:
    """Read a file of shares; see :func:`parse_shares`.

    Raises:
        InputError: not readable, or no such table.
    """
    try:
        return parse_shares(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None


def parse_shares(text: str, file: str = "sshare") -> dict[str, float]:
    """Return each account's share of the cluster, 0 to 1, of those that have shares of their own at the lowest level.

    Takes ``sshare --all --parsable2`` with its header (Account, User, NormShares: the share among siblings up to
    21.08's fair tree, of the whole cluster with ``--long``), where users' rows are left out; or lines
    ``account,share``, whose shares are put in proportion.

    Raises:
        InputError: neither.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    head = [cell.strip().lower() for cell in lines[0].split("|")] if lines else []
    found: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        if "|" in line:
            row = dict(zip(head, line.split("|"), strict=False))
            if number == 1 or row.get("user", "").strip() or row.get("account", "").strip() in ("", "root"):
                continue
            name, share = row["account"].strip(), row.get("normshares", "") or row.get("rawshares", "")
        else:
            name, _, share = (part.strip() for part in line.partition(","))
            if number == 1 and not share.replace(".", "", 1).isdigit():
                continue
        if not share.strip():
            continue
        try:
            found[name] = float(share)
        except ValueError:
            message = f"{share!r} is no share; write account,share lines, or give the output of sshare -a -l -P"
            raise InputError(Problem(message, file=file, line=number)) from None
    total = sum(found.values())
    if total <= 0:
        raise InputError(
            Problem("holds no shares; give the output of sshare -a -l -P, or account,share lines", file=file)
        )
    return {name: share / total for name, share in found.items()}


def beside_use(by_account: Sequence[Usage], targets: Mapping[str, float] | None) -> tuple[Share, ...]:
    """Return each account's target beside its share of the core-hours, those furthest above first."""
    if not targets:
        return ()
    hours = {row.name: row.core_hours or 0.0 for row in by_account if row.name is not None}
    total = sum(hours.values())
    rows = [Share(name, share, hours.get(name, 0.0) / total if total else 0.0) for name, share in targets.items()]
    return tuple(sorted(rows, key=lambda row: (row.target - row.used, row.account)))
