"""Feeds the compiled controller with jobs, some thousands at a time, and takes away those that have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hpcplan.simulate.compiled import layout as at
from hpcplan.simulate.compiled import policy_layout as policy
from hpcplan.simulate.compiled.controller import DONE, advance, advance_shared
from hpcplan.simulate.compiled.orders import STEP
from hpcplan.simulate.compiled.site_policy import Associations, Bonds, Ties, shares_of

if TYPE_CHECKING:
    from hpcplan.simulate.resources import Capacity

__all__ = ["Coming", "Driver", "Ended", "Switch"]

_CHUNK: Final = 1024  # jobs; so few that what is worked on stays in the cache
_SPANS_A_JOB: Final = 2
_LATEST_S: Final = 2**62
_MIB: Final = 1024**2


class Coming(NamedTuple):
    """A job that will be submitted: times in seconds, ``need`` nodes of those ``eligible``, a set.

    ``priority`` is ``None`` where factors make it: ``factors`` are those that do not change, times their weights, first
    as they count at submission and then as they do later. ``share`` is what a job wants that shares nodes: the most
    nodes, CPUs, whether it spreads, whether it goes where most CPUs are free, and of each node CPUs (0: it is given
    whole), memory in MiB (-1: all), memory in bytes for each CPU, and counts of GRES. ``required`` is the set of nodes
    that it must have (0: none); ``switches`` is the most leaf switches that it may be under (0: any number), on which
    it insists for ``insists_s`` seconds; ``nice`` is taken off its priority where factors make that, ``association``
    whose usage it counts for, and ``ties`` what it waits for.
    """

    number: int
    submit_s: int
    run_s: int
    limit_s: int
    need: int
    eligible: int
    partition: int
    user: int
    priority: int | None
    blocked: bool
    factors: Sequence[float]
    share: tuple[int, ...] = ()
    required: int = 0
    switches: int = 0
    insists_s: int = 0
    nice: int = 0
    association: int = -1
    ties: Ties | None = None


class Switch(NamedTuple):
    """A switch: the set of all nodes under it, how far above them it stands (0: a leaf), and which one is above it."""

    nodes: int
    level: int
    above: int


class Ended(NamedTuple):
    """A job that has ended; ``nodes`` is the set that it had, ``None`` where nobody asks.

    ``start_s`` is ``None`` if it has gone without having run.
    """

    number: int
    start_s: int | None
    end_s: int
    timed_out: bool
    nodes: int | None


class Driver:
    """One simulation. ``rules`` are numbers by the names of :data:`.layout.RULES`; sets are integers."""

    def __init__(
        self, rules: Mapping[str, int], clock: Mapping[str, int], *, all_nodes: int, lines: Sequence[int],
        partitions: Sequence[tuple[int, int]], factors: int, wants_nodes: bool, shared: Capacity | None = None,
        switches: Sequence[Switch] = (),
        associations: Associations | None = None, depends: bool = False, groups: Sequence[tuple[int, int]] = (),
    ) -> None:  # fmt: skip
        """Set it up: ``lines`` are the nodes of each line, by weight, ``partitions`` sets with their priority tiers.

        With ``shared``, jobs share nodes that have so much. ``associations`` are there where fair share counts, and
        then sets of nodes with the CPUs of each in ``groups``; jobs may have ties with ``depends``.
        """
        self._settings = {**rules, "depends": int(depends), "groups": len(groups), "sharing_users": 0, "root": 0}
        self._groups = groups
        self._bonds = Bonds() if depends else None
        self._switches = switches
        self._under_leaves = 0
        for switch in switches:
            self._under_leaves |= 0 if switch.level else switch.nodes
        self._nodes = all_nodes.bit_length()
        self._words = max(1, -(-self._nodes // 64))
        self._fixed = [all_nodes, *lines, *(mask for mask, _ in partitions)]
        self._lines, self._partitions = len(lines), partitions
        self._eligible: dict[int, int] = {}
        self._covered: dict[int, bool] = {}  # of those
        self._kinds: dict[tuple[int, ...], int] = {}  # by what they want of each node
        self._stock = None if shared is None else _stock(shared)
        self._held = None if shared is None else _held(shared)
        self._even = shared is not None and not (shared.countable[0] % shared.units).any()
        self._single = shared is not None and bool((shared.units == 1).all())
        self._whole_sockets = shared is not None and shared.whole_sockets
        self._n_factors = factors
        self._wants_nodes = wants_nodes
        self._slots = 0
        self._rules = np.zeros(len(at.RULES), np.int64)
        self._of = np.zeros((len(at.FIELDS), 0), np.int64)
        self._sets = np.zeros((0, self._words), np.uint64)
        self._shares = shares_of(associations, factors)
        if associations is not None:
            self._settings |= {"sharing_users": associations.users, "root": associations.root}
        self._users = 1
        self._insisting = 0
        self._resize(2 * _CHUNK)
        for name, value in clock.items():
            self._of[at.OF_CLOCK, at.CLOCK.index(name)] = value
        self._sets[at.ALL] = self._row(all_nodes)
        for number, (_, tier) in enumerate(partitions):
            self._of[at.PARTITION_TIER, number] = tier
        for row, values in (
            (at.SWITCH_LEVEL, [switch.level for switch in switches]),
            (at.SWITCH_ABOVE, [switch.above for switch in switches]),
            (at.SWITCH_FIRST_WORD, [_word_of(switch.nodes & -switch.nodes) for switch in switches]),
            (at.SWITCH_LAST_WORD, [_word_of(switch.nodes) for switch in switches]),
        ):
            self._of[row, : len(switches)] = values
        self._of[policy.GROUP_CPUS, : len(groups)] = [cpus for _, cpus in groups]
        self._of[at.OF_CLOCK, policy.FIRST_STARTED] = self._of[at.OF_CLOCK, policy.LAST_STARTED] = -1
        self._of[at.OF_CLOCK, at.N_ALTERED] = 1
        self._sets[at.IDLE] = self._sets[at.ALL]
        if shared is not None:
            self._of[at.WEIGHTS, : shared.count] = shared.weights
            self._of[at.OF_CLOCK, at.N_GRES] = len(shared.countable[2])

    def run(self, coming: Iterator[Coming]) -> Iterator[Ended]:
        """Yield the jobs as they end, of those that are given in the order of submission."""
        chunk, following = self._chunk(coming, next(coming, None))
        while True:
            self._feed(chunk, more=following is not None)
            if self._stock is None or self._held is None:
                code = advance(self._rules, self._of, self._sets, self._shares, _LATEST_S, -1)
            else:
                code = advance_shared(
                    self._rules, self._of, self._sets, self._stock, self._held, self._shares, _LATEST_S, -1
                )
            yield from self._taken()
            if code == DONE:
                return
            chunk, following = self._chunk(coming, following)

    @staticmethod
    def _chunk(
        coming: Iterator[Coming], first: Coming | None, most: int = _CHUNK
    ) -> tuple[list[Coming], Coming | None]:
        """Return the next jobs, to the end of a second, and the one that follows them."""
        chunk: list[Coming] = []
        while first is not None and (len(chunk) < most or first.submit_s == chunk[-1].submit_s):
            chunk.append(first)
            first = next(coming, None)
        return chunk, first

    def _feed(self, chunk: list[Coming], *, more: bool) -> None:
        """Hand over jobs that will be submitted."""
        slots = self._write(chunk)
        of, clock = self._of, self._of[at.OF_CLOCK]
        clock[at.FIRST_COMING], clock[at.N_COMING], clock[at.MORE] = 0, len(chunk), int(more)
        of[at.COMING, : len(chunk)] = slots

    def _write(self, chunk: list[Coming]) -> at.Ints:
        """Note what jobs are like and return their slots."""
        known = len(self._eligible)
        for job in chunk:
            if job.eligible not in self._eligible:
                self._eligible[job.eligible] = len(self._eligible)
            if job.share:
                self._kinds.setdefault(job.share[4:], len(self._kinds))
        users = max((job.user for job in chunk), default=0) + 1
        self._users = max(users, self._users)
        clock = self._of[at.OF_CLOCK]
        unused = int(clock[at.N_UNUSED])
        self._insisting = int(clock[at.N_INSISTING] + clock[at.N_COMING] - clock[at.FIRST_COMING]) + len(chunk)
        if self._bonds is not None:
            self._bonds.count([job.ties for job in chunk if job.ties is not None])
        if unused < len(chunk) or self._too_small():
            self._resize(2 * (self._slots - unused + len(chunk)))
        elif len(self._eligible) > known:
            self._write_eligible()
        of, clock = self._of, self._of[at.OF_CLOCK]
        count, left = len(chunk), int(clock[at.N_UNUSED]) - len(chunk)
        slots = of[at.UNUSED, left : left + count].copy()
        clock[at.N_UNUSED] = left
        if not count:
            return slots
        (
            numbers, submits, runs, limits, needs, eligible, partitions, users_, priorities, blocked, factors, _,
            required, switches, insist, nice, associations, ties,
        ) = zip(*chunk, strict=True)  # fmt: skip
        of[at.ID, slots], of[at.SUBMIT_S, slots], of[at.RUN_S, slots] = numbers, submits, runs
        of[at.LIMIT_S, slots], of[at.NEED, slots], of[at.PARTITION, slots] = limits, needs, partitions
        of[at.ELIGIBLE, slots] = [self._eligible[mask] for mask in eligible]
        of[at.USER, slots], of[at.BLOCKED, slots], of[at.START_S, slots] = users_, blocked, at.NEVER
        of[at.NICE, slots], of[at.FEW_SWITCHES, slots] = nice, switches
        of[at.INSISTS_UNTIL_S, slots] = _LATEST_S
        if any(switches):
            until = zip(submits, insist, switches, strict=True)
            of[at.INSISTS_UNTIL_S, slots] = [begin + wait_s if few else _LATEST_S for begin, wait_s, few in until]
        of[at.REQUIRED, slots] = [mask > 0 for mask in required]
        for slot, mask in zip(slots, required, strict=True) if any(required) else ():
            self._sets[self._rules[at.REQUIRED_SETS] + slot] = self._row(mask)
        of[at.COVERED, slots] = [self._is_covered(mask) for mask in eligible] if self._switches else 1
        of[at.GIVEN, slots] = [priority is not None for priority in priorities]
        of[at.PRIORITY, slots] = [priority or 0 for priority in priorities]
        if self._n_factors:
            self._shares.factors[slots] = factors
        of[policy.ELIGIBLE_S, slots], of[policy.BEGIN_S, slots] = at.NEVER, at.NEVER
        of[policy.ASSOCIATION, slots] = associations
        if self._bonds is not None:
            self._bonds.write(of, slots.tolist(), numbers, ties)
        if self._stock is not None:
            more = [
                (*job.share, sum(job.share[7:]), self._kinds[job.share[4:]], *self._ways(job)) for job in chunk
            ]  # fmt: skip
            of[at.MAXIMUM : at.STEADY + 1, slots] = np.array(more, dtype=np.int64).T
            bits = int(of[at.GRES_A_NODE, slots].max()).bit_length()
            clock[at.N_NEAR_BITS] = max(bits, clock[at.N_NEAR_BITS])
        return slots

    def _ways(self, job: Coming) -> tuple[bool, bool]:
        """Return whether a job is modest and steady.

        Modest: it fits as soon as so many nodes have room for it, as it wants no more CPUs than the least of each. Then
        what any of them offers is enough, as long as memory does not take off parts of what goes together. Steady: they
        all offer that least, as is found near GRES.
        """
        most, cpus, spread, _, node_cpus, _, cpu_memory, *gres = job.share
        whole_units = not cpu_memory or (self._even and cpu_memory >= _MIB)
        modest = most == job.need and not spread and 0 < cpus <= job.need * node_cpus and whole_units
        if modest and (job.switches or (self._switches and not self._is_covered(job.eligible))):
            modest = False  # other nodes might do
        return modest, modest and self._single and any(gres)

    def _is_covered(self, nodes: int) -> bool:
        """Whether it is a matter of numbers alone, as far as switches go, if a job fits into some of these nodes."""
        known = self._covered.get(nodes)
        if known is None:
            under = not nodes & ~self._under_leaves and any(not nodes & ~switch.nodes for switch in self._switches)
            known = self._covered[nodes] = under
        return known

    def _taken(self) -> Iterator[Ended]:
        of = self._of
        count = int(of[at.OF_CLOCK, at.N_ENDED])
        of[at.OF_CLOCK, at.N_ENDED] = 0
        rows = (at.ENDED_ID, at.ENDED_START_S, at.ENDED_END_S, at.ENDED_TIMED_OUT, at.ENDED_SET)
        numbers, starts, ends, cut, sets = (of[row, :count].tolist() for row in rows)
        nodes: Iterator[int | None]
        if self._wants_nodes:
            first = int(self._rules[at.JOB_SETS])
            held = self._sets[first + np.array(sets, dtype=np.int64)]
            nodes = (int.from_bytes(row.tobytes(), "little") for row in held)
        else:
            nodes = (None for _ in numbers)
        for number, start, end, timed_out, mask in zip(numbers, starts, ends, cut, nodes, strict=True):
            ran = start != at.NEVER
            yield Ended(number, start if ran else None, end, bool(timed_out), mask if ran else None)

    def _row(self, mask: int) -> at.Sets:
        return np.frombuffer(mask.to_bytes(8 * self._words, "little"), dtype="<u8")

    def _too_small(self) -> bool:
        return (
            len(self._eligible) > self._eligible_room or max(self._users, self._insisting) > self._of.shape[1]
            or len(self._kinds) > self._kinds_room
            or (self._bonds is not None and self._bonds.need_room(self._of, self._slots))
        )  # fmt: skip

    def _resize(self, slots: int) -> None:
        """Make room for so many jobs, and for the sets of nodes that have become known."""
        before_of, before_sets, before = self._of, self._sets, self._slots
        slots = max(slots, before)
        tested = min(self._settings["bf_max_job_test"], slots)
        spans = _SPANS_A_JOB * tested + 2
        self._eligible_room = max(64, 2 * len(self._eligible))
        self._kinds_room = max(64, 2 * len(self._kinds)) if self._stock is not None else 0
        width = max(
            slots, spans, self._nodes + 2, len(self._partitions), 2 * self._users, len(at.CLOCK), self._kinds_room,
            len(self._switches), 2 * self._insisting,
            len(self._groups), 0 if self._bonds is None else self._bonds.width(self._of, slots),
        )  # fmt: skip
        rows = len(at.FIXED_SETS)
        found = {"nodes": self._nodes, "lines": self._lines, "partitions": len(self._partitions)}
        found["whole_sockets"], found["switches"] = int(self._whole_sockets), len(self._switches)
        tables = 2 * self._kinds_room
        found["steps"] = -(-self._nodes // STEP) + 1
        for name, count in (
            ("line_sets", self._lines), ("partition_sets", len(self._partitions)), ("switch_sets", len(self._switches)),
            ("eligible_sets", self._eligible_room), ("level_sets", self._nodes + 2), ("span_sets", spans),
            ("until_sets", spans), ("job_sets", slots), ("required_sets", slots), ("room_sets", self._kinds_room),
            ("near_sets", self._kinds_room), ("ever_sets", self._kinds_room), ("stale_sets", self._kinds_room),
            ("window_sets", spans if self._settings["consumable"] else 0), ("first_sets", tables * found["steps"]),
            ("group_sets", len(self._groups)),
        ):  # fmt: skip
            found[name] = rows
            rows += count
        width = width // 16 * 16 + 24  # an odd number of cache lines, so that a job's rows do not push each other out
        for number, name in enumerate(("value_rows", "order_rows", "time_rows")):
            found[name] = len(at.FIELDS) + number * tables
        self._of = np.zeros((len(at.FIELDS) + 3 * tables, width), np.int64)
        self._of[: len(at.FIELDS), : before_of.shape[1]] = before_of[: len(at.FIELDS)]
        self._of[at.ROOM_KNOWN] = 0
        if self._bonds is not None:
            self._bonds.grow(self._of, before_of.shape[1])
        self._sets = np.zeros((rows, self._words), np.uint64)
        self._sets[: len(at.FIXED_SETS)] = before_sets[: len(at.FIXED_SETS)] if before else 0
        for number, mask in enumerate((*self._fixed[1:], *(switch.nodes for switch in self._switches))):
            self._sets[found["line_sets"] + number] = self._row(mask)
        for number, (mask, _) in enumerate(self._groups):
            self._sets[found["group_sets"] + number] = self._row(mask)
        if before:
            for name, rule in (("job_sets", at.JOB_SETS), ("required_sets", at.REQUIRED_SETS)):
                new, old = found[name], int(self._rules[rule])
                self._sets[new : new + before] = before_sets[old : old + before]
        more = np.zeros((slots - before, self._n_factors))
        self._shares = self._shares._replace(factors=np.concatenate([self._shares.factors, more]))
        unused = int(self._of[at.OF_CLOCK, at.N_UNUSED])
        self._of[at.UNUSED, unused : unused + slots - before] = np.arange(before, slots)
        self._of[at.OF_CLOCK, at.N_UNUSED] = unused + slots - before
        self._slots = slots
        self._rules[:] = [found[name] if name in found else self._settings[name] for name in at.RULES]
        self._write_eligible()

    def _write_eligible(self) -> None:
        first = int(self._rules[at.ELIGIBLE_SETS])
        for mask, number in self._eligible.items():
            self._sets[first + number] = self._row(mask)


def _word_of(nodes: int) -> int:
    """Return the word with the highest node of a set."""
    return max(0, nodes.bit_length() - 1) // 64


def _stock(capacity: Capacity) -> at.Ints:
    """Return what nodes have, none of it given out."""
    stock = np.zeros((capacity.count, at.STOCK_COLUMNS), np.int64)
    cpus, memory, gres = capacity.countable
    for first in (at.IS_FREE, at.IN_FULL):
        stock[:, first + at.OF_CPUS], stock[:, first + at.OF_MEMORY] = cpus, memory
        for kind, counts in enumerate(gres):
            stock[:, first + at.OF_GRES + kind] = counts
    stock[:, at.THREADS], stock[:, at.UNITS] = capacity.threads, capacity.units
    stock[:, at.FIRST_ENDING] = -1
    return stock


def _held(capacity: Capacity) -> at.Ints:
    """Return room for what jobs hold, chained: a job has a CPU at least of each of its nodes."""
    most = int(capacity.countable[0].sum()) + capacity.count
    held = np.full((most, at.HELD_COLUMNS), -1, np.int64)
    held[:-1, at.HELD_NEXT] = np.arange(1, most)
    return held
