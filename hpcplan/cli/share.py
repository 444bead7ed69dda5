"""``hpcplan share``: divisible work and its data over unequal nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcplan.partition.allocate import Pool, Shares

__all__ = ["command"]


@click.command()
@click.argument("pools", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--max-rounds", type=click.IntRange(1), help="How often memory may be filled; overrides the file.")
@format_option
def command(pools: Path, max_rounds: int | None, output_format: str) -> None:
    """Share work that can be cut anywhere, and its data, over unequal nodes.

    POOLS is a YAML file with the work, the data and the nodes. Equal shares, shares by priority and by cores are
    compared with the optimum of a linear program.

    \b
    Example:  hpcplan share three-nodes.yaml
    """
    from hpcplan.partition.allocate import compare_policies
    from hpcplan.partition.pools_file import read_pools

    case = read_pools(pools)
    nodes = [entry.pool() for entry in case.pools]
    rounds = max_rounds or case.max_rounds
    found = compare_policies(nodes, case.work_s / 3600, float(case.data_bytes or 0), max_rounds=rounds)
    if output_format == "json":
        echo_json([_as_dict(shares, nodes) for shares in found])
        return
    console().print(_table(found, nodes, rounds))


def _as_dict(shares: Shares, pools: Sequence[Pool]) -> dict[str, Any]:
    return {
        "policy": shares.policy,
        "makespan_h": shares.makespan_h,
        "rounds": shares.rounds,
        "pools": [
            {"name": pool.name, "work_h": work, "data_bytes": data, "finish_h": finish}
            for pool, work, data, finish in zip(pools, shares.work_h, shares.data_bytes, shares.finish_h, strict=True)
        ],
    }


def _table(found: Sequence[Shares], pools: Sequence[Pool], rounds: int | None) -> Any:
    best = min(shares.makespan_h for shares in found if rounds is None or shares.rounds <= rounds)
    rows: list[tuple[object, ...]] = []
    for shares in found:
        each = [
            f"{work:,.1f} h, {data / 1e9:,.1f} GB" for work, data in zip(shares.work_h, shares.data_bytes, strict=True)
        ]
        over = "more rounds than allowed" if rounds is not None and shares.rounds > rounds else ""
        rows.append((shares.policy, *each, f"{shares.makespan_h:,.2f} h", f"{shares.makespan_h / best - 1:+.1%}",
                     shares.rounds, over))  # fmt: skip
    columns = ("shares", *(f">{pool.name}" for pool in pools), ">all done in", ">against the best", ">memory filled",
               "")  # fmt: skip
    return table("Work and data of each pool", columns, rows)
