"""How to ask Slurm for a placement, in words that the site's Slurm knows.

``--switches`` (topology/tree), ``--segment`` (topology/block, from 24.05), ``--exclude`` and ``--nodelist``: sbatch(1).
An order of nodes within an allocation cannot be asked for; the job makes it, by a hostfile and
``--distribution=arbitrary`` (srun(1)).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpcplan.hostlist import compress
from hpcplan.plan import Placement
from hpcplan.rank_map import divisors
from hpcplan.site.hierarchy import Hierarchy
from hpcplan.site.model import Site

__all__ = ["Ask", "Way", "ask_slurm", "options_of", "under_same_leaves"]

Way = Literal["auto", "nodelist", "exclude"]
_SEGMENT_SINCE = (24, 5)


@dataclass(frozen=True, slots=True)
class Ask:
    """Options of sbatch: at most so many leaf switches, segments of so many nodes, none of these nodes, these nodes."""

    switches: int | None = None
    segment: int | None = None
    exclude: str | None = None
    node_order: tuple[str, ...] = ()


def options_of(placement: Placement) -> list[str]:
    """Return the words for sbatch that ask for a placement, as the scripts have them."""
    words = [f"--switches={placement.switches}"] if placement.switches and not placement.node_order else []
    words += [f"--segment={placement.segment}"] if placement.segment else []
    words += [f"--exclude={placement.exclude}"] if placement.exclude else []
    words += [f"--nodelist={compress(_by_name(placement.node_order))}"] if placement.node_order else []
    return words


def _by_name(hosts: Sequence[str]) -> list[str]:
    """Return hosts so that a hostlist of them is short: by name, numbers as numbers."""
    return sorted(hosts, key=lambda host: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", host)])


def under_same_leaves(hierarchy: Hierarchy, hosts: Sequence[str], free: Sequence[str]) -> list[str]:
    """Return the ``free`` hosts under the leaf switches of ``hosts``."""
    used = set(hierarchy.parent[hierarchy.numbers(hosts)].tolist())
    leaves = hierarchy.parent[hierarchy.numbers(free)].tolist()
    return [host for host, leaf in zip(free, leaves, strict=True) if leaf in used]


def ask_slurm(site: Site, hierarchy: Hierarchy, hosts: Sequence[str], group: Sequence[str], way: Way) -> Ask:
    """Return how to ask for a placement.

    Args:
        site: for its Slurm version and topology plugin.
        hierarchy: of its fabric.
        hosts: of the placement, in the order of the ranks; with ``exclude``, all that Slurm may choose from.
        group: all nodes that Slurm could choose from.
        way: ``nodelist`` asks for these very nodes; ``exclude`` forbids all others; ``auto`` leaves the choice to Slurm
            within switches or segments.
    """
    if way == "nodelist":
        return Ask(node_order=tuple(hosts))
    if way == "exclude":
        wanted = set(hosts)
        return Ask(exclude=compress(host for host in group if host not in wanted) or None)
    leaves = hierarchy.parent[hierarchy.numbers(hosts)].tolist()
    if not site.slurm.topology:
        return Ask()
    if site.fabric.kind == "blocks":
        segment = _segment(leaves) if _release(site) >= _SEGMENT_SINCE else 1
        return Ask(segment=segment if segment > 1 else None)
    return Ask(switches=len(set(leaves)))


def _segment(leaves: Sequence[int]) -> int:
    """Return the most consecutive nodes, a divisor of all, that are under one leaf each."""
    count = len(leaves)
    fitting = (d for d in divisors(count) if all(len(set(leaves[i : i + d])) == 1 for i in range(0, count, d)))
    return max(fitting)


def _release(site: Site) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", site.slurm.version or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)
