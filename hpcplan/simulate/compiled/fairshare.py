"""Fair share and what else makes the priority of a job, compiled: :mod:`hpcplan.simulate.fairshare` on arrays.

What counts, and why, is explained there; the names are the same. Sums are made in the same order, as the last bit of a
share may decide a rank.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    NEVER, NICE, OF_CLOCK, PRIORITY_MAX_AGE_S, PRIORITY_WEIGHT_AGE, START_S, SUBMIT_S, Ints,
)  # fmt: skip
from hpcplan.simulate.compiled.policy_layout import (
    ABOVE, ACCRUE_ALWAYS, ASSOCIATION, BEFORE_LEVEL, BELOW, BILLED, CLASSIC, COUNTED_S, EFFECTIVE, ELIGIBLE_S, FACTOR,
    FAIR_PLACE, FIRST_BELOW, FIRST_STARTED, KEPT, LAST_STARTED, LEVEL, NUMBERS, ORDER, PLACE,
    PRIORITY_WEIGHT_FAIR_SHARE, ROOT, SHARE, SHARES, SHARES_S, SHARING_USERS, STACK, STARTED_AFTER, STARTED_BEFORE,
    TIED, TWO, USAGE, Shares,
)  # fmt: skip

__all__ = ["count_ended", "count_started", "priority", "update_shares"]


@compiled
def priority(rules: Ints, of: Ints, shares: Shares, slot: int, later: bool, now: int) -> int:
    """Return the multifactor priority at ``now``; ``later`` than at submission other factors count."""
    since = of[SUBMIT_S, slot] if rules[ACCRUE_ALWAYS] else of[ELIGIBLE_S, slot]
    age = 0.0
    if since != NEVER:
        age = min(1.0, max(0, now - since) / rules[PRIORITY_MAX_AGE_S])
    total = rules[PRIORITY_WEIGHT_AGE] * age
    half = shares.factors.shape[1] // 2
    first = half if later else 0
    for number in range(half):
        if number == rules[FAIR_PLACE]:
            total += _fair(rules, of, shares, slot)
        total += shares.factors[slot, first + number]
    if rules[FAIR_PLACE] == half:
        total += _fair(rules, of, shares, slot)
    return max(1, int(total) - of[NICE, slot])


@compiled
def _fair(rules: Ints, of: Ints, shares: Shares, slot: int) -> float:
    """Return what fair share adds."""
    user = of[ASSOCIATION, slot]
    factor = shares.used[FACTOR, user] if user >= 0 else 0.0
    weighted: float = rules[PRIORITY_WEIGHT_FAIR_SHARE] * factor
    return weighted


@compiled
def count_started(of: Ints, slot: int) -> None:
    """Put a job behind those that run, in the order in which they were started."""
    last = of[OF_CLOCK, LAST_STARTED]
    of[COUNTED_S, slot], of[STARTED_BEFORE, slot], of[STARTED_AFTER, slot] = of[START_S, slot], last, -1
    if last < 0:
        of[OF_CLOCK, FIRST_STARTED] = slot
    else:
        of[STARTED_AFTER, last] = slot
    of[OF_CLOCK, LAST_STARTED] = slot


@compiled
def count_ended(of: Ints, shares: Shares, slot: int, now: int) -> None:
    """Add what a job has used since it was counted last, and count it no more."""
    _count(of, shares, slot, now)
    before, after = of[STARTED_BEFORE, slot], of[STARTED_AFTER, slot]
    if before < 0:
        of[OF_CLOCK, FIRST_STARTED] = after
    else:
        of[STARTED_AFTER, before] = after
    if after < 0:
        of[OF_CLOCK, LAST_STARTED] = before
    else:
        of[STARTED_BEFORE, after] = before


@compiled
def _count(of: Ints, shares: Shares, slot: int, now: int) -> None:
    user, seconds = of[ASSOCIATION, slot], max(0, now - of[COUNTED_S, slot])
    if user >= 0:
        decayed_s = seconds * shares.used[NUMBERS, KEPT] ** float(seconds)
        factor = shares.factors[slot, shares.factors.shape[1] - 1]
        shares.used[USAGE, user] += of[BILLED, slot] * decayed_s * factor
    of[COUNTED_S, slot] += seconds


@compiled
def update_shares(rules: Ints, of: Ints, shares: Shares, now: int) -> None:
    """Let usage decay up to ``now``, add what runs, and work the factors out again."""
    users, last = rules[SHARING_USERS], of[OF_CLOCK, SHARES_S]
    if not users:
        return
    if last != NEVER and now > last:
        kept = shares.used[NUMBERS, KEPT] ** float(now - last)
        for user in range(users):
            shares.used[USAGE, user] *= kept
    of[OF_CLOCK, SHARES_S] = now
    slot = of[OF_CLOCK, FIRST_STARTED]
    while slot >= 0:
        _count(of, shares, slot, now)
        slot = of[STARTED_AFTER, slot]
    _add_up(rules, shares)
    if rules[CLASSIC]:
        _classic(rules, shares)
    else:
        _fair_tree(rules, shares)


@compiled
def _add_up(rules: Ints, shares: Shares) -> None:
    """Let the usage of an account be that of all below it."""
    tree, used = shares.tree, shares.used
    for account in range(rules[SHARING_USERS], tree.shape[1]):
        used[USAGE, account] = 0.0
    for user in range(rules[SHARING_USERS]):
        account = tree[ABOVE, user]
        while account >= 0:
            used[USAGE, account] += used[USAGE, user]
            account = tree[ABOVE, account]


@compiled
def _sort_below(shares: Shares, account: int) -> None:
    """Put those below an account into the order of their levels; of equals, users first, as they have lower numbers."""
    tree, used = shares.tree, shares.used
    first, total, all_shares = tree[FIRST_BELOW, account], used[USAGE, account], 0
    beyond = first + tree[BELOW, account]
    for place in range(first, beyond):
        all_shares += tree[SHARES, tree[ORDER, place]]
    for place in range(first, beyond):
        one = tree[ORDER, place]
        part = 0.0
        if total:
            part = used[USAGE, one] / total
        if not tree[SHARES, one]:
            used[LEVEL, one] = 0.0
        elif part:
            used[LEVEL, one] = tree[SHARES, one] / all_shares / part
        else:
            used[LEVEL, one] = float("inf")
        at = place
        while at > first and _comes_before(shares, one, tree[ORDER, at - 1]):
            tree[ORDER, at] = tree[ORDER, at - 1]
            at -= 1
        tree[ORDER, at] = one


@compiled
def _comes_before(shares: Shares, one: int, other: int) -> bool:
    if shares.used[LEVEL, one] != shares.used[LEVEL, other]:
        return bool(shares.used[LEVEL, one] > shares.used[LEVEL, other])
    return one < other


@compiled
def _fair_tree(rules: Ints, shares: Shares) -> None:
    tree, used = shares.tree, shares.used
    rank = left = rules[SHARING_USERS]
    for user in range(left):
        used[FACTOR, user] = 0.0
    depth = 0
    tree[STACK, 0], tree[PLACE, 0], tree[TIED, 0] = rules[ROOT], 0, 0
    _sort_below(shares, rules[ROOT])
    while depth >= 0:
        account, place = tree[STACK, depth], tree[PLACE, depth]
        if place == tree[BELOW, account]:
            depth -= 1
            continue
        tree[PLACE, depth] += 1
        one = tree[ORDER, tree[FIRST_BELOW, account] + place]
        level = used[LEVEL, one]
        tied = tree[TIED, depth] > 0 if not place else used[BEFORE_LEVEL, depth] == level
        used[BEFORE_LEVEL, depth] = level
        if one < rules[SHARING_USERS]:
            if not tied:
                rank = left
            used[FACTOR, one] = rank / rules[SHARING_USERS]
            left -= 1
            continue
        depth += 1
        tree[STACK, depth], tree[PLACE, depth], tree[TIED, depth] = one, 0, tied
        _sort_below(shares, one)


@compiled
def _classic(rules: Ints, shares: Shares) -> None:
    tree, used = shares.tree, shares.used
    everything = 0.0
    for user in range(rules[SHARING_USERS]):
        everything += used[USAGE, user]
        used[FACTOR, user] = 0.0
    tree[STACK, 0], depth = rules[ROOT], 0
    used[SHARE, rules[ROOT]] = 1.0
    used[EFFECTIVE, rules[ROOT]] = 1.0 if everything else 0.0
    while depth >= 0:
        account = tree[STACK, depth]
        depth -= 1
        first, count, all_shares = tree[FIRST_BELOW, account], tree[BELOW, account], 0
        for place in range(first, first + count):
            all_shares += tree[SHARES, tree[ORDER, place]]
        effective = used[EFFECTIVE, account]
        for place in range(first, first + count):
            one = tree[ORDER, place]
            part = own = 0.0
            if all_shares:
                own = used[SHARE, account] * (tree[SHARES, one] / all_shares)
                if account != rules[ROOT]:
                    part = tree[SHARES, one] / all_shares
            actual = 0.0
            if everything:
                actual = used[USAGE, one] / everything
            usage = actual + (effective - actual) * part
            if one < rules[SHARING_USERS]:
                used[FACTOR, one] = used[NUMBERS, TWO] ** -(usage / own) if own else 0.0
                continue
            used[SHARE, one], used[EFFECTIVE, one] = own, usage
            depth += 1
            tree[STACK, depth] = one
