"""``hpcplan plan --pool``: one job over several node groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcplan.cli.output import console, echo_json, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.schedule.pooled import Pooled
    from hpcplan.site.load import LoadedSite
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["show_pools"]


def show_pools(
    loaded: LoadedWorkload,
    site: LoadedSite,
    words: tuple[str, ...],
    constants: Path | None,
    command: str,
    output: Path | None,
    output_format: str,
) -> None:
    """Plan one job over the pools and print how they share it."""
    from hpcplan.documents import write_text
    from hpcplan.partition.pools import parse_pools
    from hpcplan.schedule.pooled import make_pooled_plan

    partition = loaded.workload.request.partition or site.site.default_partition()
    counts = parse_pools(words, site.site, partition)
    with progress("sharing"):
        pooled = make_pooled_plan(loaded, site, partition, counts, constants_folder=constants, command=command)
    if output is not None:
        write_text(output, pooled.plan.text())
    if output_format == "json":
        echo_json(pooled.as_dict())
    else:
        _show(pooled)
    if output is not None:
        narrate(f"wrote {output}; next: hpcplan render {output} -o DIR")


def _show(pooled: Pooled) -> None:
    from hpcplan.units import format_slurm_time

    plan, out = pooled.plan, console()
    out.print(_pools_table(pooled))
    out.print(_rules_table(pooled))
    jobs = f"{len(plan.segments)} jobs of up to {format_slurm_time(plan.segments[0].time_limit_s)}"
    out.print(f"{plan.training.steps:,} steps in {jobs}.", markup=False)
    out.print(f"Why: {plan.search.why}.", markup=False)
    for note in pooled.notes:
        out.print(f"Note: {note}.", markup=False)


def _pools_table(pooled: Pooled) -> Any:
    from hpcplan.units import format_bytes, format_duration

    shared, rows = pooled.shared, []
    ends = [sum(shared.stages[: i + 1]) for i in range(len(shared.stages))]
    for place, (member, pool) in enumerate(zip(shared.members, pooled.plan.placement.pools, strict=True)):
        first = ends[place] - shared.stages[place]
        layers = "+".join(str(count) for count in shared.stage_layers[first : ends[place]]) or "all"
        share = f"{pool.data_share:.1%}" if pool.data_share is not None else "all"
        rows.append(
            (
                member.kind.group, member.nodes, member.gpus, layers, shared.micro_batch[place], share,
                format_duration(shared.stage_s[place]), format_bytes(shared.memory_bytes[place]),
                format_bytes(float(member.kind.machine.memory_bytes)),
            )
        )  # fmt: skip
    s = pooled.plan.plan
    title = (
        f"{pooled.plan.name} on {pooled.plan.provenance.site.name}: tp {s.tp}, pp {s.pp}, dp {s.dp}, "
        f"{s.micro_batches} micro-batches, ZeRO {s.zero}, recompute {s.recompute}"
    )
    columns = ("pool", ">nodes", ">GPUs", "layers by stage", ">micro-batch", ">data", ">a micro-batch takes", ">memory",
               ">of")  # fmt: skip
    return table(title, columns, rows)


def _rules_table(pooled: Pooled) -> Any:
    from hpcplan.units import format_duration

    best = pooled.shared.step_s
    rows: list[tuple[object, ...]] = [("the optimum", format_duration(best), "")]
    for name, step_s in pooled.rules.items():
        rows.append((f"{name}, the same otherwise", *_against(step_s, best)))
    for group, step_s in pooled.alone.items():
        rows.append((f"{group} alone", *_against(step_s, best)))
    rows.append(("bound: no grain, no waiting", *_against(pooled.shared.bound_s, best)))
    return table("Other ways to share", ("shares", ">step", ">against the optimum"), rows)


def _against(step_s: float | None, best: float) -> tuple[str, str]:
    from hpcplan.units import format_duration

    return ("does not fit", "") if step_s is None else (format_duration(step_s), f"{step_s / best - 1:+.1%}")
