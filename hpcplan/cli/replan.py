"""``hpcplan replan``: another plan for what is left of a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import settle_s
from hpcplan.cli.output import echo_json, format_option, narrate, progress

if TYPE_CHECKING:
    from hpcplan.plan import Plan
    from hpcplan.slurm.backend import Backend
    from hpcplan.workload.model import Workload

__all__ = ["command"]


@click.command()
@click.argument("campaign", required=False)
@click.option("--nodes", metavar="N|A:B", help="How many nodes; as many as can be used now unless given.")
@click.option("--site", "site_name", metavar="SITE", help="The site; as planned unless given.")
@click.option("--next-best", "take_next", is_flag=True, help="Take the plan's next sharding that needs less memory.")
@click.option("--stop", is_flag=True, help="Cancel a job that runs; its trainer is told to save first.")
@click.option("--dry-run", is_flag=True, help="Show the new plan and touch nothing.")
@format_option
def command(
    campaign: str | None, nodes: str | None, site_name: str | None, take_next: bool, stop: bool, dry_run: bool,
    output_format: str,
) -> None:  # fmt: skip
    """Go on with a campaign from its last checkpoint with another plan.

    For when nodes are fewer or more than planned, or memory was not enough. The workload is planned again on the nodes
    that can be used now, for the steps that are left; jobs that wait are taken back, and the new chain is submitted.
    The trainer must be able to load its checkpoint into another sharding.

    \b
    Examples:
      hpcplan replan llama3-70b
      hpcplan replan campaign --nodes 48 --dry-run
      hpcplan replan campaign --next-best
    """
    from hpcplan.campaign import adopt, read_ledger, step_to_go_on_from, submit
    from hpcplan.campaign.layout import current_plan
    from hpcplan.cli.status import locate

    directory, backend = locate(campaign)
    if backend is None:
        raise click.UsageError(f"{directory} was never submitted; render another plan instead")
    old = current_plan(directory, read_ledger(directory))
    step = step_to_go_on_from(directory)
    with progress("planning"):
        new = _next_best(old, step) if take_next else _planned_anew(old, step, nodes, site_name, backend)
    words = _words(old, new, step)
    if dry_run:
        _show(directory, new, step, None, words, output_format)
        return
    with progress("going on"):
        number = adopt(directory, backend, new, why=words, stop=stop)
        submit(directory, backend, settle_s=settle_s(backend))
    _show(directory, new, step, number, words, output_format)
    if output_format != "json":
        narrate(f"next: hpcplan status {directory} --watch")


def _next_best(old: Plan, step: int) -> Plan:
    from hpcplan.campaign import from_step, next_best
    from hpcplan.errors import InfeasibleError

    other = next_best(old)
    if other is None:
        raise InfeasibleError("the plan has no other sharding left that needs less memory")
    return from_step(other, step, step_time_ratio=max(1.0, other.estimate.iter_time_s / old.estimate.iter_time_s))


def _planned_anew(old: Plan, step: int, nodes: str | None, site_name: str | None, backend: Backend) -> Plan:
    from dataclasses import replace

    from hpcplan.campaign import from_step
    from hpcplan.schedule.planner import make_plan
    from hpcplan.site.load import load_site
    from hpcplan.workload.load import load_workload
    from hpcplan.workload.model import parse_node_range

    try:
        span = parse_node_range(nodes) if nodes is not None else (1, _usable(old, backend))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--nodes") from None
    source = old.provenance.workload
    shipped = Path(source.path).name == "catalogue.yaml"  # one of those that are known by name
    loaded = load_workload(source.name if shipped else source.path)
    workload = replace(loaded, workload=_as_planned(loaded.workload, old, same_site=site_name is None))
    site = load_site(site_name or old.provenance.site.path)
    return from_step(make_plan(workload, site, nodes=span, command="hpcplan replan").plan, step)


def _as_planned(workload: Workload, old: Plan, *, same_site: bool) -> Workload:
    """Return the workload with what the plan was made for, where options of ``hpcplan plan`` or a file that was edited
    since say something else: the run stays the same run, or its steps would not keep their numbers.
    """
    run = old.training
    training = {"tokens": run.tokens, "global_batch": run.global_batch, "sequence_length": run.sequence_length,
                "precision": old.plan.precision}  # fmt: skip
    request: dict[str, Any] = {"framework": old.job.framework}
    if same_site:
        walltime_s = max(segment.time_limit_s for segment in old.segments)
        request |= {"partition": old.placement.partition, "walltime_s": walltime_s}
    return workload.model_copy(
        update={
            "training": workload.training.model_copy(update=training),
            "request": workload.request.model_copy(update=request),
        }
    )


def _usable(old: Plan, backend: Backend) -> int:
    """Return how many nodes of the plan's partition jobs can be placed on now."""
    from hpcplan.errors import InfeasibleError

    partition = old.placement.partition
    count = sum(node.usable for node in backend.nodes() if partition in node.partitions)
    if count == 0:
        raise InfeasibleError(f"no node of partition {partition!r} can be used now")
    return count


def _words(old: Plan, new: Plan, step: int) -> str:
    before, after = old.plan, new.plan
    axes = ", ".join(f"{axis} {getattr(after, axis)}" for axis in ("tp", "pp", "dp", "cp", "ep"))
    return f"from step {step + 1} on {after.nodes} nodes (before: {before.nodes}): {axes}, zero {after.zero}"


def _show(directory: Path, new: Plan, step: int, number: int | None, words: str, output_format: str) -> None:
    if output_format == "json":
        data: dict[str, Any] = {
            "directory": str(directory.resolve()), "generation": number, "step": step,
            "plan": new.plan.model_dump(mode="json"), "estimate": new.estimate.model_dump(mode="json"),
            "segments": len(new.segments),
        }  # fmt: skip
        echo_json(data)
        return
    begin = f"plan {number}" if number is not None else "would go on"
    click.echo(f"{begin} {words}; {len(new.segments)} jobs of at most {new.segments[0].time_limit_s // 60} min")
