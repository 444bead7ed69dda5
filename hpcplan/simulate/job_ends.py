"""Which running jobs a plan lets end together before it asks whether a waiting job fits (Slurm 22.05).

select/linear asks after the end of each job. select/cons_tres asks after groups of ends. The first group goes up to
30 s past the next full half minute (of unix time) after the first end; where the next group stops doubles with each
question (slurm.conf(5), ``bf_window_linear``, adds that many seconds instead), and on until the next end lies within
it. All are counted from that half minute, not from one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["groups_of_ends"]

_WINDOW_S: Final = 30  # compiled in


def groups_of_ends(
    ends: Sequence[tuple[int, int, int]], usable: int, settings: SlurmSettings
) -> Iterator[tuple[int, list[int]]]:
    """Yield jobs (as positions in ``ends``) after which it is asked whether a job fits, with the last one's end.

    ``ends`` holds (end by time limit, id, nodes), sorted. Only jobs on usable nodes go; but it is the end of the next
    job, whichever nodes it is on, that is held against the window.
    """
    if not settings.consumable:
        for number, (end, _, nodes) in enumerate(ends):
            if nodes & usable:
                yield end, [number]
        return
    window_s = _WINDOW_S
    start: int | None = None
    group: list[int] = []
    count = len(ends)
    for number, (end, _, nodes) in enumerate(ends):
        if not nodes & usable:
            continue
        if start is None:
            start = end + _WINDOW_S - (end + settings.clock_s) % _WINDOW_S
        group.append(number)
        following = ends[number + 1][0] if number + 1 < count else None
        if following is None or following <= start + window_s:
            continue
        yield end, group
        group = []
        window_s = _wider(window_s, settings)
        while following > start + window_s:
            window_s = _wider(window_s, settings)
    if group:
        yield ends[group[-1]][0], group


def _wider(window_s: int, settings: SlurmSettings) -> int:
    return window_s + settings.bf_window_linear_s if settings.bf_window_linear_s else window_s * 2
