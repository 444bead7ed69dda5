"""Where in its arrays the compiled controller finds what: ``rules``, ``of``, ``sets``, and where jobs share nodes also
``stock`` and ``held``.

``rules[RULE]`` are numbers that do not change; ``of[ROW, i]`` whole numbers of jobs (by slot), of queues (by place) and
of the clock; ``sets[row, word]`` sets of nodes, the lowest node being the lowest bit of the first word. Few arrays make
calls cheap.

``stock[node, COLUMN]`` is what nodes have and what is left of it; ``held[place, COLUMN]`` what jobs have of nodes, a
node a row, each job's rows chained. Both are ``None`` where nodes are given out whole: numba then compiles the code
without what concerns them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hpcplan.simulate.compiled.policy_layout import POLICY_CLOCK, POLICY_FIELDS, POLICY_RULES

__all__ = [
    "AMOUNTS", "CLOCK", "FIELDS", "FIXED_SETS", "GRES_KINDS", "HELD_COLUMNS", "NEVER", "RULES", "STOCK_COLUMNS",
    "Floats", "Ints", "Sets", "Stock",
]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Sets = npt.NDArray[np.uint64]
Stock = Ints | None

GRES_KINDS: Final = 8  # so many kinds of GRES are counted at most, GPUs among them
NEVER: Final = -(2**62)  # a time that is not set

# The fields of SlurmSettings that count, and what follows from them; counts of sets, and the rows where they begin.
RULES: Final = (
    *POLICY_RULES,
    "builtin", "defer", "nodes_tell", "by_id", "multifactor", "recalculated", "sched_interval_s", "batch_sched_delay_s",
    "default_queue_depth", "partition_job_depth", "sched_max_job_start", "bf_interval_s", "bf_resolution_s",
    "bf_window_s", "bf_max_job_test", "spans_at_most", "bf_max_job_start", "bf_max_job_part", "bf_max_job_user",
    "bf_job_part_count_reserve", "bf_min_age_reserve_s", "bf_min_prio_reserve", "over_time_limit_s",
    "priority_weight_age", "priority_max_age_s", "priority_calc_period_s", "time_limit_check_s", "started_s",
    "started_ms", "clock_s", "loop_phase_ms", "loop_drift_us", "backfill_phase_ms", "backfill_pass_drift_us",
    "end_overhead_ms", "cleanup_ms", "epilog_ms", "epilog_msg_us", "first_turn_s", "priorities_begin_ms", "nodes",
    "lines", "line_sets", "partitions",
    "partition_sets", "level_sets", "span_sets", "until_sets", "job_sets", "eligible_sets",
    "kill_wait_s", "bf_window_linear_s", "whole_sockets", "room_sets", "near_sets", "ever_sets", "stale_sets",
    "window_sets", "first_sets", "steps", "value_rows", "order_rows", "time_rows", "consumable", "switches",
    "switch_sets", "required_sets", "complete_wait_s",
)  # fmt: skip
(
    BUILTIN, DEFER, NODES_TELL, BY_ID, MULTIFACTOR, RECALCULATED, SCHED_INTERVAL_S, BATCH_SCHED_DELAY_S,
    DEFAULT_QUEUE_DEPTH, PARTITION_JOB_DEPTH, SCHED_MAX_JOB_START, BF_INTERVAL_S, BF_RESOLUTION_S, BF_WINDOW_S,
    BF_MAX_JOB_TEST, SPANS_AT_MOST, BF_MAX_JOB_START, BF_MAX_JOB_PART, BF_MAX_JOB_USER, BF_JOB_PART_COUNT_RESERVE,
    BF_MIN_AGE_RESERVE_S, BF_MIN_PRIO_RESERVE, OVER_TIME_LIMIT_S, PRIORITY_WEIGHT_AGE, PRIORITY_MAX_AGE_S,
    PRIORITY_CALC_PERIOD_S, TIME_LIMIT_CHECK_S, STARTED_S, STARTED_MS, CLOCK_S, LOOP_PHASE_MS, LOOP_DRIFT_US,
    BACKFILL_PHASE_MS, BACKFILL_PASS_DRIFT_US, END_OVERHEAD_MS, CLEANUP_MS, EPILOG_MS, EPILOG_MSG_US, FIRST_TURN_S,
    PRIORITIES_BEGIN_MS, NODES, LINES, LINE_SETS, PARTITIONS, PARTITION_SETS, LEVEL_SETS, SPAN_SETS, UNTIL_SETS,
    JOB_SETS, ELIGIBLE_SETS, KILL_WAIT_S, BF_WINDOW_LINEAR_S, WHOLE_SOCKETS, ROOM_SETS, NEAR_SETS, EVER_SETS,
    STALE_SETS, WINDOW_SETS, FIRST_SETS, STEPS, VALUE_ROWS, ORDER_ROWS, TIME_ROWS, CONSUMABLE, SWITCHES, SWITCH_SETS,
    REQUIRED_SETS, COMPLETE_WAIT_S,
) = range(len(POLICY_RULES), len(RULES))  # fmt: skip

# Sets that there is one of: all nodes, the busy and the free ones, those chosen, those that no job holds up, those that
# a pass has promised, those without jobs, those that count as lighter for the job that is planned for, nodes of jobs
# that are over and not yet clean, those with room for it by some time or before one, those of the jobs that end before
# the first on usable ones, those whose times have changed, those of the switch that holds it, and room to work in. Then
# the bits of how much lighter nodes count (see weighing.py).
FIXED_SETS: Final = (
    "all", "busy", "free", "usable", "pool", "light", "chosen", "not_held_up", "planned", "idle", "fitting", "neared",
    "completing", "ready", "front", "moved", "earlier", "before", "under_switch", "tier",
    *(f"near_{bit}" for bit in range(35)),
)  # fmt: skip
(
    ALL, BUSY, FREE, USABLE, POOL, LIGHT, CHOSEN, NOT_HELD_UP, PLANNED, IDLE, FITTING, NEARED, COMPLETING, READY, FRONT,
    MOVED, EARLIER, BEFORE, UNDER_SWITCH, TIER, NEAR_BITS,
) = range(21)  # fmt: skip

# Of jobs, by slot; the first and the last words of their sets that are not empty.
FIELDS: Final = (
    *POLICY_FIELDS,
    "id", "submit_s", "run_s", "limit_s", "need", "eligible", "partition", "user", "priority", "given", "blocked",
    "start_s", "limit_end_s", "began_ms", "is_over", "timed_out", "backfilled", "first_word", "last_word",
    # The most leaf switches that they may be under (0: any number) and until when they insist on that; whether they
    # fit somewhere under the switches as soon as there are enough nodes; whether there are nodes that they must have
    # (in REQUIRED_SETS), and what is taken off their priority.
    "few_switches", "insists_until_s", "covered", "required", "nice",
    # Of jobs that share nodes: what they want in all and of each node (memory in MiB, -1 for all; or in bytes for each
    # CPU), how many GRES that is, jobs of which kind want the same of a node, whether they fit as soon as there are
    # enough nodes with room for them, whether each of these offers just what they want of it, and the first of the rows
    # that are held.
    "maximum", "cpus", "spread", "least_loaded", "node_cpus", "node_memory", "cpu_memory",
    *(f"node_gres_{number}" for number in range(GRES_KINDS)), "gres_a_node", "kind",
    "modest", "steady", "first_held",
    # Slots in order: that wait; those of them that a pass sees; that run or are cleaned up, by the end of their limits;
    # unused ones; to be submitted.
    "waiting", "in_sight", "promised", "unused", "coming",
    # Heaps of (time, slot): when jobs end, when the controller hears of it, then of their nodes (ms), and until when
    # jobs insist on few switches, also those that have started since.
    "end_times", "end_slots", "seen_times", "seen_slots", "insist_times", "insist_slots",
    # Jobs that have ended, to be taken away.
    "ended_id", "ended_start_s", "ended_end_s", "ended_timed_out", "ended_backfilled", "ended_set",
    # One backfill pass: the spans of what is promised, with how many nodes each has that the one before has not and
    # how many only that one has; and the ends of limits, with how many jobs are in each level.
    "begins", "span_rows", "counts", "gained", "lost", "limit_ends", "limit_slots", "level_counts",
    # Counts by partition or user in one pass, runs of nodes, tiers of partitions, the clock.
    "looked_at", "tested", "tested_users", "reserved", "run_begins", "run_sizes", "partition_tier",
    # Of switches: how far above the nodes, the switch above (-1: none), the first and last words that are not empty,
    # how many nodes that could be had; of leaves how far they are from those taken already, and their order.
    "switch_level", "switch_above", "switch_first_word", "switch_last_word", "switch_count", "switch_far",
    "switch_steps", "switch_order",
    # Where jobs share nodes: CPUs and weights of runs, what a job still wants, which nodes have changed, and up to
    # which change what is known of each kind of job (see kinds.py) holds; the nodes that move in its order, and those
    # that have been seen.
    "run_cpus", "run_weights", "run_order", "still_wanted", "altered", "room_known",
    "moving", "ordered", "seen",
    # Of jobs that one pass has planned for: a slot, and from when on it might have fitted (see outlook.py).
    "known_slots", "known_from",
    # Of nodes: weights, what they offer to the job looked at.
    "weights", "offer",
    "clock",
)  # fmt: skip
(
    ID, SUBMIT_S, RUN_S, LIMIT_S, NEED, ELIGIBLE, PARTITION, USER, PRIORITY, GIVEN, BLOCKED, START_S, LIMIT_END_S,
    BEGAN_MS, IS_OVER, TIMED_OUT, BACKFILLED, FIRST_WORD, LAST_WORD, FEW_SWITCHES, INSISTS_UNTIL_S, COVERED, REQUIRED,
    NICE, MAXIMUM, CPUS, SPREAD, LEAST_LOADED, NODE_CPUS, NODE_MEMORY, CPU_MEMORY, NODE_GRES, *_,
    GRES_A_NODE, KIND, MODEST, STEADY, FIRST_HELD, WAITING, IN_SIGHT, PROMISED, UNUSED, COMING, END_TIMES, END_SLOTS,
    SEEN_TIMES, SEEN_SLOTS, INSIST_TIMES, INSIST_SLOTS, ENDED_ID, ENDED_START_S, ENDED_END_S, ENDED_TIMED_OUT,
    ENDED_BACKFILLED, ENDED_SET, BEGINS, SPAN_ROWS, COUNTS, GAINED, LOST, LIMIT_ENDS, LIMIT_SLOTS, LEVEL_COUNTS,
    LOOKED_AT, TESTED, TESTED_USERS, RESERVED, RUN_BEGINS, RUN_SIZES, PARTITION_TIER, SWITCH_LEVEL, SWITCH_ABOVE,
    SWITCH_FIRST_WORD, SWITCH_LAST_WORD, SWITCH_COUNT, SWITCH_FAR, SWITCH_STEPS, SWITCH_ORDER, RUN_CPUS, RUN_WEIGHTS,
    RUN_ORDER, STILL_WANTED, ALTERED, ROOM_KNOWN, MOVING, ORDERED, SEEN, KNOWN_SLOTS, KNOWN_FROM, WEIGHTS, OFFER,
    OF_CLOCK,
) = range(len(POLICY_FIELDS), len(FIELDS))  # fmt: skip

# The controller's own numbers: of[OF_CLOCK, …]; the last are how many there are in the rows of the same names.
CLOCK: Final = (
    *POLICY_CLOCK,
    "now", "changed", "triggered", "turn_ms", "period", "more", "first_coming",
    "last_whole_s", "last_s", "batch_ms", "wanted", "main_due_ms", "main_due_whole",
    "backfill_last_s", "backfill_wake_ms", "backfill_changed_s", "planned_idle", "repeats", "backfill_due_ms",
    "competing", "late", "tried", "at_once", "passed_over",
    "n_coming", "n_waiting", "n_promised", "n_unused", "n_running", "n_cleaning", "n_ended", "n_spans", "n_levels",
    "n_limits", "n_altered", "n_gres", "unused_held", "n_near_bits", "n_ready", "window_middle", "window_end",
    "n_insisting", "n_known", "first_usable", "before_s", "next_gres_s", "n_spans_made",
)  # fmt: skip
(
    NOW, CHANGED, TRIGGERED, TURN_MS, PERIOD, MORE, FIRST_COMING, LAST_WHOLE_S, LAST_S, BATCH_MS, WANTED, MAIN_DUE_MS,
    MAIN_DUE_WHOLE, BACKFILL_LAST_S, BACKFILL_WAKE_MS, BACKFILL_CHANGED_S, PLANNED_IDLE, REPEATS, BACKFILL_DUE_MS,
    COMPETING, LATE, TRIED, AT_ONCE, PASSED_OVER, N_COMING, N_WAITING, N_PROMISED, N_UNUSED, N_RUNNING, N_CLEANING,
    N_ENDED, N_SPANS, N_LEVELS, N_LIMITS, N_ALTERED, N_GRES, UNUSED_HELD, N_NEAR_BITS, N_READY, WINDOW_MIDDLE,
    WINDOW_END, N_INSISTING, N_KNOWN, FIRST_USABLE, BEFORE_S, NEXT_GRES_S, N_SPANS_MADE,
) = range(len(POLICY_CLOCK), len(CLOCK))  # fmt: skip

# Of nodes: amounts that are free now and that there are; minus the jobs there, and minus those that have it whole. CPUs
# of a core, CPUs that go to one job together, and what the job has of it whose limit ends first (-1: none).
AMOUNTS: Final = ("cpus", "memory", "jobs", "whole", *(f"gres_{number}" for number in range(GRES_KINDS)))
OF_CPUS, OF_MEMORY, OF_JOBS, OF_WHOLE, OF_GRES = range(5)
IS_FREE, IN_FULL = 0, len(AMOUNTS)
THREADS, UNITS, FIRST_ENDING = range(2 * len(AMOUNTS), 2 * len(AMOUNTS) + 3)
STOCK_COLUMNS: Final = FIRST_ENDING + 1

# Of what is held: the node, the job, how many CPUs and how much memory (MiB), the row that follows of the job's (-1:
# none), and of the node's.
HELD_NODE, HELD_SLOT, HELD_CPUS, HELD_MEMORY, HELD_NEXT, HELD_LATER = range(6)
HELD_COLUMNS: Final = HELD_LATER + 1
