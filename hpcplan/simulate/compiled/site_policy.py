"""What the compiled controller is told of a site's policy: the tree of fair share, and what jobs wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from hpcplan.simulate.compiled import policy_layout as at
from hpcplan.simulate.compiled.layout import NEVER, OF_CLOCK, Ints

__all__ = ["Associations", "Bonds", "Ties", "shares_of"]

_ROOM: Final = 1024  # conditions at first


class Associations(NamedTuple):
    """The associations of a cluster, the ``users`` first, and the accounts.

    Of each the account ``above`` it that counts what is used (-1: none), its ``shares``, and those ``below`` it;
    ``factors`` are those of the users to begin with, ``kept`` is what is kept of usage a second.
    """

    users: int
    root: int
    above: Sequence[int]
    shares: Sequence[int]
    below: Sequence[Sequence[int]]
    factors: Sequence[float]
    kept: float


class Ties(NamedTuple):
    """From when on a job may start, and what it waits for.

    ``conditions`` are kinds (:data:`.policy_layout.AFTER` and so on), the numbers of the jobs, and seconds after that;
    with ``any_of`` one is enough, and with ``kills`` the job goes if they can never be met. Others may wait for one
    that is ``awaited``; jobs of one user and name are of one ``family``, if anybody asks (else -1).
    """

    begin_s: int | None = None
    conditions: tuple[tuple[int, int, int], ...] = ()
    any_of: bool = False
    kills: bool = False
    awaited: bool = False
    family: int = -1


_LOOSE: Final = Ties()


def shares_of(associations: Associations | None, factors: int) -> at.Shares:
    """Return what priorities are made of, with so many factors, and no jobs yet."""
    count = 1 if associations is None else len(associations.above)
    tree = np.zeros((len(at.TREE_ROWS), count + 1), np.int64)
    used = np.zeros((len(at.FLOAT_ROWS), max(2, count + 1)))
    used[at.NUMBERS, at.TWO] = 2.0
    if associations is not None:
        tree[at.ABOVE, :count], tree[at.SHARES, :count] = associations.above, associations.shares
        tree[at.ABOVE, count:] = -1
        place = 0
        for number, those in enumerate(associations.below):
            tree[at.FIRST_BELOW, number], tree[at.BELOW, number] = place, len(those)
            tree[at.ORDER, place : place + len(those)] = those
            place += len(those)
        used[at.FACTOR, : associations.users] = associations.factors
        used[at.NUMBERS, at.KEPT] = associations.kept
    return at.Shares(np.zeros((0, factors)), tree, used)


class Bonds:
    """Notes who waits for whom in the controller's arrays."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}  # of jobs that others may wait for, by their numbers
        self._numbers: dict[int, int] = {}  # the other way round
        self._wanted = 0  # conditions of the jobs that come
        self._families = 0
        self._room = 0  # conditions that there are rows for

    def count(self, ties: Sequence[Ties]) -> None:
        """Note what is to come."""
        self._wanted = sum(len(one.conditions) for one in ties)
        self._families = max([self._families, *(one.family + 1 for one in ties)])

    def need_room(self, of: Ints, slots: int) -> bool:
        """Whether the arrays are too small for what is to come."""
        return of[OF_CLOCK, at.N_UNUSED_CONDITIONS] < self._wanted or self._least(of, slots) > of.shape[1]

    def width(self, of: Ints, slots: int) -> int:
        """Return how long rows must be for twice as much as is to come."""
        return 2 * self._least(of, slots) + _ROOM

    def _least(self, of: Ints, slots: int) -> int:
        """Return how long rows must be: jobs are woken twice, and once more where conditions change when they begin."""
        unused = int(of[OF_CLOCK, at.N_UNUSED_CONDITIONS]) if of.shape[1] else 0
        return max(self._families, 3 * slots, 2 * (slots + self._room - unused + self._wanted))

    def grow(self, of: Ints, before: int) -> None:
        """Make use of rows that have become longer than ``before``."""
        unused, more = int(of[OF_CLOCK, at.N_UNUSED_CONDITIONS]), of.shape[1] - self._room
        of[at.UNUSED_CONDITIONS, unused : unused + more] = np.arange(self._room, of.shape[1])
        of[OF_CLOCK, at.N_UNUSED_CONDITIONS] = unused + more
        self._room = of.shape[1]
        for row in (at.FIRST_CONDITION, at.FIRST_WAITER, at.FAMILY_FIRST):
            of[row, before:] = -1

    def write(self, of: Ints, slots: Sequence[int], numbers: Sequence[int], ties: Sequence[Ties | None]) -> None:
        """Note the ties of jobs that come."""
        for slot in slots if self._numbers else ():
            if (number := self._numbers.pop(slot, None)) is not None:
                del self._slots[number]
        of[at.STATE, slots], of[at.WAKES, slots], of[at.WOKEN_AT_BEGIN, slots] = at.COMES, 0, 0
        for row in (at.FIRST_CONDITION, at.FIRST_WAITER, at.FAMILY):
            of[row, slots] = -1
        for row in (at.ANY_OF, at.KILLS, at.KEPT_IN_MIND):
            of[row, slots] = 0
        for slot, number, one in zip(slots, numbers, ties, strict=True):
            if one is not None:
                self._write_one(of, slot, number, one)

    def _write_one(self, of: Ints, slot: int, number: int, ties: Ties) -> None:
        if ties.awaited:
            self._slots[number], self._numbers[slot] = slot, number
        of[at.BEGIN_S, slot] = NEVER if ties.begin_s is None else ties.begin_s
        of[at.ANY_OF, slot], of[at.KILLS, slot], of[at.FAMILY, slot] = ties.any_of, ties.kills, ties.family
        of[at.KEPT_IN_MIND, slot] = ties != _LOOSE
        following = -1
        for kind, target, delay_s in reversed(ties.conditions):
            left = int(of[OF_CLOCK, at.N_UNUSED_CONDITIONS]) - 1
            of[OF_CLOCK, at.N_UNUSED_CONDITIONS] = left
            place = int(of[at.UNUSED_CONDITIONS, left])
            on = self._slots.get(target, -1)  # one that is not known has ended long ago
            for row, value in (
                (at.OF_SLOT, slot), (at.OF_ID, number), (at.CONDITION_KIND, kind), (at.ON_SLOT, on),
                (at.ON_ID, target if on >= 0 else -1), (at.DELAY_S, delay_s), (at.STATUS, at.UNFULFILLED),
                (at.IS_LINKED, 0), (at.NEXT_OF_JOB, following),
            ):  # fmt: skip
                of[row, place] = value
            following = place
        of[at.FIRST_CONDITION, slot] = following
