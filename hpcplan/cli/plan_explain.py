"""Tables of ``hpcplan plan --explain`` and ``--pareto``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcplan.cli.output import table

if TYPE_CHECKING:
    from hpcplan.partition.explanation import Explanation
    from hpcplan.partition.search import Outcome
    from hpcplan.partition.stage_memory import StageMemory
    from hpcplan.schedule.planner import Planned

__all__ = ["changes_table", "front_table", "fullest_line", "near_miss_line", "stages_table", "terms_table"]


def terms_table(explanation: Explanation) -> Any:
    """Return where the time goes, of the winner and of the runner-up."""
    from hpcplan.units import format_duration

    rows: list[tuple[object, ...]] = []
    best, other = (
        sum(values) for values in zip(*((t.best_s, t.runner_up_s or 0.0) for t in explanation.terms), strict=True)
    )
    for term in [*explanation.terms]:
        if max(term.best_s, term.runner_up_s or 0.0) > 0:
            rows.append((term.meaning, format_duration(term.best_s), *_against(term.best_s, term.runner_up_s)))
    rows.append(("one step", format_duration(best), *_against(best, other if explanation.runner_up else None)))
    title = f"Runner-up: {explanation.runner_up}" if explanation.runner_up else "No other kind of sharding fits"
    return table(title, ("term", ">the best", ">runner-up", ">difference"), rows)


def fullest_line(stages: Sequence[StageMemory]) -> str:
    """Return which GPUs hold most, in a sentence."""
    from hpcplan.partition.stage_memory import fullest
    from hpcplan.units import format_bytes

    one = fullest(stages)
    return (
        f"Fullest are the GPUs of stage {one.stage + 1} of {len(stages)} (ranks {one.first_rank} to {one.last_rank}): "
        f"{one.layers} layers, {one.in_flight:g} micro-batches in flight, {format_bytes(one.total_bytes)}."
    )


def stages_table(stages: Sequence[StageMemory]) -> Any:
    """Return what a GPU of each stage holds; stages that hold the same are one row."""
    from hpcplan.units import format_bytes

    rows: dict[tuple[object, ...], list[int]] = {}
    for one in stages:
        held = (one.layers, f"{one.in_flight:g}", *map(format_bytes, one.terms_bytes.values()))
        rows.setdefault((*held, format_bytes(one.total_bytes)), []).append(one.stage + 1)
    names = [f">{name.replace('_', ' ')}" for name in stages[0].terms_bytes]
    return table(
        "Memory of a GPU by stage",
        ("stage", ">layers", ">in flight", *names, ">all"),
        [(", ".join(map(str, of)), *held) for held, of in rows.items()],
    )


def _against(best_s: float, other_s: float | None) -> tuple[str, str]:
    from hpcplan.units import format_duration

    if other_s is None:
        return "", ""
    sign = "+" if other_s >= best_s else ""
    return format_duration(other_s), sign + format_duration(other_s - best_s)


def near_miss_line(explanation: Explanation) -> str:
    """Return the nearest sharding that did not fit, in a sentence."""
    from hpcplan.partition.found import node_count
    from hpcplan.units import format_bytes, format_duration

    miss = explanation.near_miss
    if miss is None:
        return "Everything fits in memory."
    what = "would be faster, but does not fit" if miss.faster else "does not fit, and would be no better"
    where = f"{node_count(miss.nodes)} of {miss.node_group}"
    return (
        f"Nearest that did not fit: {miss.sharding}, on {where}: {format_duration(miss.step_s)} a step {what}: "
        f"{format_bytes(miss.needs_bytes)} is {format_bytes(miss.over_bytes)} too much."
    )


def changes_table(planned: Planned) -> Any:
    """Return what each change would be worth."""
    from hpcplan.partition.found import describe
    from hpcplan.units import format_duration

    assert planned.explanation is not None
    best = float(planned.outcome.costs.step_s[0])
    rows: list[tuple[object, ...]] = []
    for change in planned.explanation.changes:
        found = change.outcome
        if found is None:
            rows.append((change.name, "", "", change.why.split("; ")[0], change.caveat))
            continue
        step = float(found.costs.step_s[0])
        rows.append(
            (change.name, format_duration(step), f"{step / best - 1:+.1%}", describe(found.best, 0), change.caveat)
        )
    return table("What would change it", ("change", ">step", ">against now", "then the best is", "but"), rows)


def front_table(outcome: Outcome) -> Any:
    """Return the Pareto front."""
    from hpcplan.partition.pareto import front_rows
    from hpcplan.units import format_bytes, format_duration

    assert outcome.front is not None
    rows: list[tuple[object, ...]] = []
    for row in front_rows(outcome, outcome.front):
        cost = "" if row["cost"] is None else f"{row['cost']:,.0f}"
        energy = "" if row["energy_kwh"] is None else f"{row['energy_kwh']:,.0f}"
        rows.append(
            (
                row["nodes"], row["node_group"], row["precision"], format_duration(row["iter_time_s"]),
                format_duration(row["train_s"]), cost, energy, format_bytes(row["memory_bytes"]), row["sharding"],
            )
        )  # fmt: skip
    columns = (">nodes", "group", "precision", ">step", ">training", f">cost ({outcome.winner.currency})", ">kWh",
               ">memory", "sharding")  # fmt: skip
    return table(f"What no other plan beats: {len(rows)} of {outcome.feasible:,} that fit", columns, rows)
