"""How a slurmctld schedules: the parameters of slurm.conf(5) that decide when jobs start, with Slurm 22.05's defaults.

What slurm.conf does not say (how long the end of a job takes to be noticed, where the controller's clock stood) is a
field here too, with the value that was measured on a real slurmctld 22.05.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

__all__ = ["SlurmSettings", "consumes_cpus", "gres_count", "scheduling", "with_slurmdbd"]

_LOOP_AFTER_PRIORITIES_MS: Final = 40
_COUNTED_AFTER_PRIORITIES_MS: Final = 180  # between 85 and 345, as two recordings have it
_BACKFILL_REGISTERED_MS: Final = 850  # when the threads begin that a word with slurmdbd comes before
_LOOP_REGISTERED_MS: Final = 1160


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """Parameters of the main and the backfill scheduler and of priorities; names and defaults as in slurm.conf(5).

    Counts of 0 are no limit. Without slurmdbd the thread that works priorities out anew does not run (measured), so
    that they are not ``priority_recalculated`` while jobs wait: age counts for nothing.

    ``nodes_tell`` is whether each node has something to do after a job, and tells the controller when it is done: run
    the ``Epilog``, or end the step that ``PrologFlags`` has given the allocation. (A SPANK plugin's epilog, which
    slurm.conf does not name, counts as well.)

    The last fields are not Slurm's, and were measured on slurmctld 22.05.8. The controller began ``started_s`` and
    ``started_ms`` on the trace's clock, and its periods count from there; the trace's clock is ``clock_s`` (unix
    seconds) behind the controller's, which is what ``bf_resolution`` rounds. It holds running jobs against their limits
    every ``time_limit_check_s`` (``PERIODIC_TIMEOUT``, compiled in). Its loop comes to its first turn
    ``loop_phase_ms`` into a second; it sleeps a second and then works, so that it falls back by ``loop_drift_us`` a
    second; so does the backfill thread, ``backfill_pass_drift_us`` a pass. Launching a job and hearing of its end take
    ``end_overhead_ms``, which is why a turn at the second of its end sees the end of a long job and not that of a
    short one. Then its nodes take ``cleanup_ms`` to answer; where they tell by themselves, ``epilog_ms`` and one after
    the other, each ``EpilogMsgTime`` (``epilog_msg_us``, microseconds) later.
    """

    builtin: bool = False
    multifactor: bool = False
    consumable: bool = False
    sched_interval_s: int = 60
    batch_sched_delay_s: int = 3
    default_queue_depth: int = 100
    partition_job_depth: int = 0
    sched_max_job_start: int = 0
    defer: bool = False
    bf_interval_s: int = 30
    bf_resolution_s: int = 60
    bf_window_s: int = 86400
    bf_max_job_test: int = 500
    bf_node_space_size: int = 0
    bf_max_job_start: int = 0
    bf_max_job_part: int = 0
    bf_max_job_user: int = 0
    bf_job_part_count_reserve: int = 0
    bf_min_age_reserve_s: int = 0
    bf_min_prio_reserve: int = 0
    bf_window_linear_s: int = 0
    max_switch_wait_s: int = 300
    over_time_limit_s: int = 0
    kill_wait_s: int = 30
    nodes_tell: bool = False
    epilog_msg_us: int = 2000
    complete_wait_s: int = 0
    priority_weight_age: int = 0
    priority_weight_job_size: int = 0
    priority_weight_partition: int = 0
    priority_weight_qos: int = 0
    priority_weight_fair_share: int = 0
    priority_weight_tres: tuple[tuple[str, int], ...] = ()
    priority_decay_half_life_s: int = 7 * 86400
    priority_flags: frozenset[str] = frozenset()
    preempt_type: str = "none"
    preempt_mode: str = "off"
    preempt_exempt_s: int = 0
    requeue_delay_s: int = 121
    licenses: tuple[tuple[str, int], ...] = ()
    priority_max_age_s: int = 7 * 86400
    priority_favor_small: bool = False
    priority_calc_period_s: int = 300
    priority_recalculated: bool = True
    limits_safe: bool = False
    gang: bool = False
    started_s: int = -3
    time_limit_check_s: int = 30
    started_ms: int = 0
    clock_s: int = 0
    loop_phase_ms: int = 110
    loop_drift_us: int = 2000
    backfill_phase_ms: int = 80
    backfill_pass_drift_us: int = 1800
    end_overhead_ms: int = 50
    cleanup_ms: int = 10
    epilog_ms: int = 22

    @property
    def spans_at_most(self) -> int:
        """How many spans of time backfill may have made when it plans for a job (slurm.conf(5), bf_node_space_size)."""
        return self.bf_node_space_size if self.bf_node_space_size > 1 else self.bf_max_job_test

    @property
    def priorities_begin_ms(self) -> int:
        """When the thread that works out priorities begins, just before the loop."""
        return self.started_s * 1000 + self.started_ms + max(0, self.loop_phase_ms - _LOOP_AFTER_PRIORITIES_MS)

    @property
    def count_ms(self) -> int:
        """When what groups use in time is counted first, and from then on every ``PriorityCalcPeriod``."""
        return self.priorities_begin_ms + _COUNTED_AFTER_PRIORITIES_MS

    def switch_wait_s(self, switches: str | None) -> int:
        """Return how long a job insists on its number of switches: ``--switches=N@TIME``, capped by the controller."""
        from hpcplan.units import parse_slurm_time

        longest = self.max_switch_wait_s
        _, _, wait = (switches or "").partition("@")
        return min(longest, parse_slurm_time(wait) or longest) if wait else longest

    def first_second(self, phase_ms: int) -> int:
        """Return the second in which a thread has its first turn."""
        return self.started_s + (self.started_ms + phase_ms) // 1000


# SchedulerParameters whose value is a whole number: (field, factor)
_NUMBERS: Final = {
    "sched_interval": ("sched_interval_s", 1),
    "batch_sched_delay": ("batch_sched_delay_s", 1),
    "default_queue_depth": ("default_queue_depth", 1),
    "partition_job_depth": ("partition_job_depth", 1),
    "sched_max_job_start": ("sched_max_job_start", 1),
    "bf_interval": ("bf_interval_s", 1),
    "bf_resolution": ("bf_resolution_s", 1),
    "bf_window": ("bf_window_s", 60),
    "bf_max_job_test": ("bf_max_job_test", 1),
    "max_job_bf": ("bf_max_job_test", 1),
    "bf_node_space_size": ("bf_node_space_size", 1),
    "bf_max_job_start": ("bf_max_job_start", 1),
    "bf_max_job_part": ("bf_max_job_part", 1),
    "bf_max_job_user": ("bf_max_job_user", 1),
    "bf_job_part_count_reserve": ("bf_job_part_count_reserve", 1),
    "bf_min_age_reserve": ("bf_min_age_reserve_s", 1),
    "bf_min_prio_reserve": ("bf_min_prio_reserve", 1),
    "bf_window_linear": ("bf_window_linear_s", 1),
    "max_switch_wait": ("max_switch_wait_s", 1),
}
_AT_LEAST_ONE: Final = {"sched_interval_s", "bf_interval_s", "bf_resolution_s", "bf_window_s", "bf_max_job_test"}


def scheduling(values: Mapping[str, str]) -> SlurmSettings:
    """Return the settings of a slurm.conf's global keys, given in lower case.

    Of a parameter that Slurm does not know, or whose value it cannot use, it keeps the default; so does this.

    Raises:
        ValueError: a key of its own (not one of ``SchedulerParameters``) has a value that slurmctld would not start
            with; the message begins with the key.
    """
    found: dict[str, Any] = {
        "builtin": values.get("schedulertype", "sched/backfill").lower() == "sched/builtin",
        "multifactor": values.get("prioritytype", "priority/basic").lower() == "priority/multifactor",
        "consumable": consumes_cpus(values),
        "priority_favor_small": values.get("priorityfavorsmall", "no").lower() in {"yes", "true", "1"},
    }
    found["defer"] = "defer" in values.get("schedulerparameters", "").lower()
    for word in values.get("schedulerparameters", "").split(","):
        name, _, value = word.strip().partition("=")
        if name.lower() in _NUMBERS and value.isdecimal():
            field, factor = _NUMBERS[name.lower()]
            if int(value) or field not in _AT_LEAST_ONE:
                found[field] = int(value) * factor
    found["priority_recalculated"] = False
    found["gang"] = "gang" in values.get("preemptmode", "").lower()
    found["limits_safe"] = "safe" in values.get("accountingstorageenforce", "").lower()
    found["priority_flags"] = frozenset(values.get("priorityflags", "").lower().split(",")) - {""}
    found["preempt_type"] = values.get("preempttype", "preempt/none").lower().removeprefix("preempt/")
    found["preempt_mode"] = values.get("preemptmode", "off").lower().replace("gang", "").strip(",") or "off"
    found["priority_weight_tres"] = _counts(values.get("priorityweighttres", ""), "=")
    found["licenses"] = _counts(values.get("licenses", ""), ":")
    found["nodes_tell"] = bool(values.get("epilog", "").strip()) or bool(
        {"contain", "x11"} & set(values.get("prologflags", "").lower().replace(" ", "").split(","))
    )
    found |= _own_keys(values)
    if "reduce_completing_frag" in values.get("schedulerparameters", "").lower():
        found["complete_wait_s"] = 0  # it then holds back parts of the cluster at most
    assert found.keys() <= {field.name for field in fields(SlurmSettings)}
    settings = SlurmSettings(**found)
    return with_slurmdbd(settings) if values.get("accountingstoragetype", "").lower().endswith("slurmdbd") else settings


def with_slurmdbd(settings: SlurmSettings) -> SlurmSettings:
    """Return the settings of a controller that has a slurmdbd: priorities are worked out anew while jobs wait.

    Its threads begin later: it registers with slurmdbd first, which took 0.75 to 1 s (measured).
    """
    return replace(
        settings,
        priority_recalculated=True,
        backfill_phase_ms=_BACKFILL_REGISTERED_MS,
        loop_phase_ms=_LOOP_REGISTERED_MS,
    )


def _counts(text: str, sign: str) -> tuple[tuple[str, int], ...]:
    """Return (name, count) of ``CPU=1000,GRES/gpu=2000`` or ``matlab:5,ansys``."""
    found = []
    for word in text.lower().replace("*", sign).split(","):
        name, _, count = word.strip().partition(sign)
        if name:
            found.append((name, int(count) if count.isdecimal() else int(sign == ":")))
    return tuple(found)


def consumes_cpus(values: Mapping[str, str]) -> bool:
    """Return whether jobs are given CPUs (select/cons_tres, cons_res), not whole nodes (select/linear, the default)."""
    return values.get("selecttype", "select/linear").lower() in {"select/cons_tres", "select/cons_res"}


def gres_count(word: str) -> int:
    """Return a count of GRES, which may end in K, M, G, T or P (slurm.conf(5), Gres); 1 for a word that is none."""
    number, power = word[:-1], "kmgtp".find(word[-1:].lower()) + 1
    if power and number.isdecimal():
        return int(number) << 10 * power
    return int(word) if word.isdecimal() else 1


def _own_keys(values: Mapping[str, str]) -> dict[str, Any]:
    from hpcplan.units import parse_slurm_time

    found: dict[str, Any] = {}
    for key, field, factor in (
        ("overtimelimit", "over_time_limit_s", 60), ("killwait", "kill_wait_s", 1),
        ("priorityweightage", "priority_weight_age", 1), ("priorityweightjobsize", "priority_weight_job_size", 1),
        ("priorityweightpartition", "priority_weight_partition", 1), ("priorityweightqos", "priority_weight_qos", 1),
        ("priorityweightfairshare", "priority_weight_fair_share", 1), ("epilogmsgtime", "epilog_msg_us", 1),
        ("completewait", "complete_wait_s", 1),
    ):  # fmt: skip
        if key in values:
            if values[key].lower() in {"unlimited", "infinite"} and key == "overtimelimit":
                found[field] = 365 * 86400
                continue
            if not values[key].isdecimal():
                raise ValueError(f"{key}: {values[key]!r} is not a whole number")
            found[field] = int(values[key]) * factor
    for key, field in (
        ("prioritymaxage", "priority_max_age_s"), ("prioritycalcperiod", "priority_calc_period_s"),
        ("prioritydecayhalflife", "priority_decay_half_life_s"), ("preemptexempttime", "preempt_exempt_s"),
    ):  # fmt: skip
        if key in values and values[key] != "-1":
            try:
                seconds = parse_slurm_time(values[key])
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
            found[field] = max(1, seconds or 365 * 86400)
    return found
