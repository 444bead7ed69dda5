"""Where the compiled controller finds what site policy needs, ahead of the rest of :mod:`.layout`: priorities by fair
share, what jobs wait for, and from when on they may start.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT_ROWS", "POLICY_CLOCK", "POLICY_FIELDS", "POLICY_RULES", "TREE_ROWS", "Shares"]

# How many factors come before that of fair share (-1: there is none), whether age counts from the submission on, and
# whether Fair Tree is off; associations: how many are users, and the number of the root; whether jobs wait for jobs.
POLICY_RULES: Final = (
    "fair_place", "accrue_always", "classic", "priority_weight_fair_share", "sharing_users", "root", "depends",
    "groups", "group_sets",
)  # fmt: skip
(
    FAIR_PLACE, ACCRUE_ALWAYS, CLASSIC, PRIORITY_WEIGHT_FAIR_SHARE, SHARING_USERS, ROOT, DEPENDS, GROUPS, GROUP_SETS,
) = range(len(POLICY_RULES))  # fmt: skip

POLICY_FIELDS: Final = (
    # Of jobs, by slot: since when they are in the queue, whose association counts
    # (-1: nobody's), how many CPUs are billed, up to when that is counted, and who was started after and before.
    "eligible_s", "association", "billed", "counted_s", "started_after", "started_before",
    # Whether they are gone, come, wait or run, and whether their nodes are cleaned up; from when on they may start; how
    # many times they will be woken, and how many of these then (more than twice makes no difference); whether one
    # condition is enough, whether they go with a condition that fails, the first condition; whether others may wait for
    # them or they for something, and the first and the last of those; those of the same user and name (-1: nobody
    # asks).
    "state", "cleaning", "begin_s", "wakes", "woken_at_begin", "any_of", "kills", "first_condition", "kept_in_mind",
    "first_waiter", "last_waiter", "family",
    # A heap of (time, slot): when jobs may start. What has happened that others wait for, in order.
    "wake_times", "wake_slots", "news",
    # Of conditions: whose it is (the slot and the ID), of which kind, on whom (likewise), how long after that, how it
    # stands, whether it is among the waiters of the one it is on, and how many of the family were there before; the
    # next condition of the same job and the next one on the same job. Unused ones.
    "of_slot", "of_id", "condition_kind", "on_slot", "on_id", "delay_s", "status", "is_linked", "earlier",
    "next_of_job", "next_waiter", "unused_conditions",
    # Of families: how many are there, and the first and the last condition on them.
    "family_size", "family_first", "family_last",
    # CPUs of the nodes of each group.
    "group_cpus",
)  # fmt: skip
(
    ELIGIBLE_S, ASSOCIATION, BILLED, COUNTED_S, STARTED_AFTER, STARTED_BEFORE, STATE, CLEANING, BEGIN_S,
    WAKES, WOKEN_AT_BEGIN, ANY_OF, KILLS, FIRST_CONDITION, KEPT_IN_MIND, FIRST_WAITER, LAST_WAITER, FAMILY,
    WAKE_TIMES, WAKE_SLOTS, NEWS, OF_SLOT, OF_ID, CONDITION_KIND, ON_SLOT, ON_ID, DELAY_S, STATUS, IS_LINKED,
    EARLIER, NEXT_OF_JOB, NEXT_WAITER, UNUSED_CONDITIONS, FAMILY_SIZE, FAMILY_FIRST, FAMILY_LAST, GROUP_CPUS,
) = range(len(POLICY_FIELDS))  # fmt: skip

POLICY_CLOCK: Final = ("first_started", "last_started", "shares_s", "n_wakes", "n_news", "n_unused_conditions")
FIRST_STARTED, LAST_STARTED, SHARES_S, N_WAKES, N_NEWS, N_UNUSED_CONDITIONS = range(len(POLICY_CLOCK))

GONE, COMES, WAITS, RUNS = range(4)  # how a job stands
AFTER, AFTERANY, AFTEROK, AFTERNOTOK, SINGLETON = range(5)  # kinds of conditions
UNFULFILLED, MET, FAILED = range(3)  # how a condition stands
HAS_STARTED, HAS_SUCCEEDED, HAS_FAILED, HAS_LEFT = range(4)  # news: of a job, or of the family that one has left

# Of associations, users first: the account above that counts what is used (-1: none), the number of shares, where those
# below an account are in ``ORDER``, and room to work in.
TREE_ROWS: Final = ("above", "shares", "first_below", "below", "order", "stack", "place", "tied")
ABOVE, SHARES, FIRST_BELOW, BELOW, ORDER, STACK, PLACE, TIED = range(len(TREE_ROWS))
# What is used by each, how far below its share that is, its factor; shares and usage of accounts in the classic tree;
# and single numbers: what is kept a second, and 2.
FLOAT_ROWS: Final = ("usage", "level", "factor", "share", "effective", "before", "numbers")
USAGE, LEVEL, FACTOR, SHARE, EFFECTIVE, BEFORE_LEVEL, NUMBERS = range(len(FLOAT_ROWS))
KEPT, TWO = range(2)


class Shares(NamedTuple):
    """What priorities are made of: the factors of jobs that do not change, by slot, and the tree of fair share.

    ``factors`` are first as they count at submission and then as they do later; a last column, where there is fair
    share, is the ``UsageFactor`` of the job's QOS.
    """

    factors: npt.NDArray[np.float64]
    tree: npt.NDArray[np.int64]
    used: npt.NDArray[np.float64]
