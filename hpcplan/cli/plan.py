"""``hpcplan plan``: from a workload and a site to a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table
from hpcplan.cli.plan_finish import finish_options
from hpcplan.frameworks import FRAMEWORKS

if TYPE_CHECKING:
    from hpcplan.plan import Estimate, Plan, Precision, Sharding
    from hpcplan.schedule.planner import Planned
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["command"]

_PICTURES = (".svg", ".png", ".pdf")


@click.command()
@click.argument("workload")
@click.option("--site", "site_name", required=True, metavar="SITE", help="A site's name or file.")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--nodes", metavar="N|A:B", help="How many nodes, or the least and the most.")
@click.option(
    "--objective",
    type=click.Choice(["step", "train", "cost", "energy", "finish"]),
    default="step",
    show_default=True,
    help="What to make least: time of a step, of the training, its cost or energy, or till it is done, queue included.",
)
@click.option("--fix", "fixed", multiple=True, metavar="NAME=VALUE", help="Fix a part of the sharding, as in tp=8.")
@click.option("--framework", type=click.Choice(list(FRAMEWORKS)), help="What will run it.")
@click.option("--partition", help="The Slurm partition; the site's default if absent.")
@click.option("--node-group", help="The node group of a mixed partition.")
@click.option("--pool", "pools", multiple=True, metavar="GROUP[=N]", help="One job over several node groups.")
@click.option("--tokens", metavar="N", help="Train on so many tokens, as in 300B.")
@click.option("--global-batch", metavar="N", help="Sequences a step.")
@click.option("--sequence-length", metavar="N", help="Tokens a sequence.")
@click.option("--walltime", metavar="TIME", help="Longest time limit of one job, as in 12:00:00 or '20 h'.")
@click.option("--deadline", metavar="TIME", help="Longest time of the whole training, without the queue.")
@click.option("--budget", type=float, metavar="MONEY", help="Most that the training may cost.")
@click.option("--memory-headroom", type=float, metavar="SHARE", help="Share of each GPU's memory to leave free.")
@click.option("--precision", "precisions", metavar="P[,P]", help="Precisions of the products to choose from.")
@click.option("--pareto", is_flag=True, help="Show what no other plan beats in time, cost, energy and nodes at once.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw that front: .svg, .png or .pdf.")
@click.option("--explain", "explained", is_flag=True, help="Say why it won, and what would change it.")
@click.option(
    "--constants",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Constants of your own, from 'hpcplan calibrate fit'.",
)
@click.option("--alternatives", type=click.IntRange(0, 50), default=5, show_default=True, help="Runners-up to keep.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write plan.json here.")
@finish_options
@format_option
def command(
    workload: str,
    site_name: str,
    sites_dir: Path | None,
    nodes: str | None,
    objective: Any,
    fixed: tuple[str, ...],
    pools: tuple[str, ...],
    constants: Path | None,
    precisions: str | None,
    pareto: bool,
    plot: Path | None,
    explained: bool,
    alternatives: int,
    output: Path | None,
    output_format: str,
    criterion: str,
    queue_name: str | None,
    histories: tuple[Path, ...],
    **overrides: Any,
) -> None:
    """Find the best sharding of a workload on a site.

    WORKLOAD is a name (llama3-8b, gpt3-175b, ...), a workload file, or a Hugging Face config.json.

    \b
    Examples:
      hpcplan plan llama3-8b --site superpod-h100 --nodes 4
      hpcplan plan llama3-70b --site superpod-h100 --nodes 16:64 --objective cost -o plan.json
      hpcplan plan my-run.yaml --site mysite.yaml --fix tp=8 --fix pp=4 --format json
      hpcplan plan llama3-70b --site superpod-h100 --pareto --plot front.svg
      hpcplan plan llama3-70b --site superpod-h100 --nodes 16 --explain
      hpcplan plan llama3-8b --site mixed-lab --pool h100 --pool a100=4
      hpcplan plan llama3-8b --site superpod-h100 --objective finish --queue auto --plot tradeoff.svg
    """
    from hpcplan.cli.plan_finish import show_finish
    from hpcplan.cli.plan_pools import show_pools
    from hpcplan.documents import write_text
    from hpcplan.errors import InputError
    from hpcplan.partition.fixed import parse_fixed
    from hpcplan.schedule.planner import make_plan
    from hpcplan.site import load_site
    from hpcplan.workload import load_workload

    if plot is not None and plot.suffix not in _PICTURES:
        raise InputError(f"--plot {plot}: the name must end in {', '.join(_PICTURES)}")
    loaded = _override(load_workload(workload), overrides)
    site = load_site(site_name, sites_dir)
    typed = " ".join(["hpcplan", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "hpcplan" else ""
    if pools:
        given = {"--nodes": nodes, "--fix": fixed, "--pareto": pareto, "--plot": plot, "--explain": explained,
                 "--precision": precisions}  # fmt: skip
        others = [name for name, value in given.items() if value]
        if others:
            raise InputError(f"--pool and {others[0]} do not go together")
        show_pools(loaded, site, pools, constants, typed, output, output_format)
        return
    about_queue = {"criterion": criterion, "queue_name": queue_name, "histories": histories}
    if objective == "finish":
        if pareto:
            raise InputError(
                "--objective finish and --pareto do not go together; --plot draws the trade-off of node counts"
            )
        show_finish(
            loaded, site, about_queue, plot=plot, output=output, output_format=output_format, nodes=_nodes(nodes),
            fixed=parse_fixed(fixed), precisions=_precisions(precisions), explained=explained,
            alternatives=alternatives, constants_folder=constants, command=typed,
        )  # fmt: skip
        return
    if queue_name is not None or histories or criterion != "p50":
        raise InputError("--queue, --history and --finish-by go with --objective finish")
    with progress("searching"):
        planned = make_plan(
            loaded,
            site,
            nodes=_nodes(nodes),
            objective=objective,
            fixed=parse_fixed(fixed),
            precisions=_precisions(precisions),
            pareto=pareto or plot is not None,
            explained=explained,
            alternatives=alternatives,
            constants_folder=constants,
            command=typed,
        )
    if plot is not None:
        _draw(planned, plot)
    if output is not None:
        write_text(output, planned.plan.text())
    if output_format == "json":
        echo_json(planned.as_dict())
    else:
        show(planned)
    if output is not None:
        narrate(f"wrote {output}; next: hpcplan render {output} -o DIR")


def _precisions(text: str | None) -> tuple[Precision, ...]:
    """Return the precisions of ``bf16,fp8``; none for none."""
    from typing import get_args

    from hpcplan.errors import InputError, nearest
    from hpcplan.plan import Precision

    words = tuple(word.strip() for word in text.split(",")) if text else ()
    known = get_args(Precision)
    for word in words:
        if word not in known:
            raise InputError(f"--precision: {word!r} is none" + nearest(word, known))
    return words  # type: ignore[return-value]


def _draw(planned: Planned, path: Path) -> None:
    from hpcplan.partition.pareto import draw_front

    assert planned.outcome.front is not None
    plan = planned.plan
    title = f"{plan.name} on {plan.provenance.site.name}: what no other plan beats"
    draw_front(planned.outcome, planned.outcome.front, path, title)
    narrate(f"drew {path}")


def _nodes(text: str | None) -> tuple[int, int] | None:
    from hpcplan.errors import InputError
    from hpcplan.workload.model import parse_node_range

    try:
        return None if text is None else parse_node_range(text)
    except ValueError as error:
        raise InputError(f"--nodes: {error}") from None


def _override(loaded: LoadedWorkload, options: dict[str, Any]) -> LoadedWorkload:
    """Return the workload with what the options say, checked as a file would be.

    Raises:
        InputError: a value that the field cannot have; the message names the option.
    """
    import dataclasses

    from pydantic import ValidationError

    from hpcplan.errors import InputError
    from hpcplan.workload.model import Workload

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    training = {k: given[k] for k in ("tokens", "global_batch", "sequence_length") if k in given}
    names = ("framework", "partition", "node_group", "budget", "memory_headroom")
    request: dict[str, Any] = {k: given[k] for k in names if k in given}
    request |= {f"{k}_s": given[k] for k in ("walltime", "deadline") if k in given}
    if not given:
        return loaded
    data = loaded.workload.model_dump()
    data["training"] |= training
    data["request"] |= request
    try:
        workload = Workload.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][-1]).removesuffix("_s").replace("_", "-")
        raise InputError(f"--{option}: {first['msg'].removeprefix('Value error, ')}") from None
    return dataclasses.replace(loaded, workload=workload)


def show(planned: Planned) -> None:
    """Print the plan as tables for people: the best few, where the winner's time and memory go, the run."""
    from hpcplan.cli.plan_explain import (
        changes_table,
        front_table,
        fullest_line,
        near_miss_line,
        stages_table,
        terms_table,
    )

    plan = planned.plan
    out = console()
    out.print(_best_table(plan))
    out.print(_breakdown_table(plan))
    if len(planned.stages) > 1:
        out.print(fullest_line(planned.stages), markup=False)
    out.print(_run_table(planned))
    out.print(f"Why: {plan.search.why}.", markup=False)
    if planned.explanation is not None:
        if len(planned.stages) > 1:
            out.print(stages_table(planned.stages))
        out.print(terms_table(planned.explanation))
        out.print(near_miss_line(planned.explanation), markup=False)
        out.print(changes_table(planned))
    if planned.outcome.front is not None:
        out.print(front_table(planned.outcome))
    for note in planned.notes:
        out.print(f"Note: {note}.", markup=False)


def _best_table(plan: Plan) -> Any:
    columns = (">nodes", ">tp", ">pp", ">vpp", ">cp", ">ep", ">dp", ">micro-batch", ">ZeRO", "recompute", ">step",
               ">memory", ">MFU", ">tokens/s", "against the best")  # fmt: skip
    rows = [_row(plan.plan, plan.estimate, "best")]
    rows += [_row(other.plan, other.estimate, other.why) for other in plan.alternatives]
    return table(f"{plan.name} on {plan.provenance.site.name}", columns, rows)


def _row(sharding: Sharding, estimate: Estimate, why: str) -> tuple[object, ...]:
    from hpcplan.partition.found import layer_count
    from hpcplan.units import format_bytes, format_count, format_duration

    s = sharding
    recompute = s.recompute if s.recompute_layers is None else f"{s.recompute} of {layer_count(s.recompute_layers)}"
    recompute += f" in blocks of {s.recompute_block}" if s.recompute_block else ""
    recompute += f" + MLP {s.recompute_mlp}" if s.recompute_mlp != "none" else ""
    recompute += " + SP" if s.sequence_parallel else ""
    recompute += f" + {s.offload} offload" if s.offload != "none" else ""
    return (
        s.nodes, s.tp, s.pp, s.vpp, _context(s), s.ep, s.dp, s.micro_batch,
        _zero(s), recompute,
        format_duration(estimate.iter_time_s), format_bytes(estimate.memory_bytes), f"{estimate.mfu:.1%}",
        format_count(estimate.tokens_per_s), why,
    )  # fmt: skip


def _context(s: Sharding) -> str:
    return str(s.cp) if s.context_exchange == "p2p" else f"{s.cp} ({s.context_exchange})"


def _zero(s: Sharding) -> str:
    groups = f" in {s.shard_group}s" if s.shard_group else ""
    groups += f", hpZ in {s.secondary_group}s" if s.secondary_group else ""
    return f"{s.zero}{groups}" + (f", {s.quantized} quantized" if s.quantized != "none" else "")


def _breakdown_table(plan: Plan) -> Any:
    from hpcplan.units import format_bytes, format_duration

    time = plan.estimate.breakdown.time.model_dump()
    memory = plan.estimate.breakdown.memory.model_dump()
    times = [(name.removesuffix("_s").replace("_", " "), value) for name, value in time.items()]
    bytes_ = [(name.removesuffix("_bytes").replace("_", " "), value) for name, value in memory.items()]
    rows: list[tuple[object, ...]] = []
    for i in range(max(len(times), len(bytes_))):
        left = times[i] if i < len(times) else None
        right = bytes_[i] if i < len(bytes_) else None
        rows.append(
            (
                left[0] if left else "",
                format_duration(left[1]) if left else "",
                f"{left[1] / plan.estimate.iter_time_s:.1%}" if left else "",
                right[0] if right else "",
                format_bytes(right[1]) if right else "",
                f"{right[1] / plan.estimate.memory_bytes:.1%}" if right else "",
            )
        )
    columns = ("time of a step", ">seconds", ">share", "memory of the fullest GPU", ">bytes", ">share")
    return table(None, columns, rows)


def _run_table(planned: Planned) -> Any:
    from hpcplan.units import format_count, format_duration, format_slurm_time

    plan, run, search = planned.plan, planned.plan.training, planned.plan.search
    estimate, last = plan.estimate, plan.segments[0]
    pruned = ", ".join(f"{count:,} by {rule}" for rule, count in search.pruned.items())
    step_s, low, high = (format_duration(value) for value in (estimate.iter_time_s, estimate.low, estimate.high))
    length = format_duration(run.time_to_train_s)
    limit, where = format_slurm_time(last.time_limit_s), plan.placement
    rows: list[tuple[object, ...]] = [
        ("step time", f"{step_s}, 90 % between {low} and {high}"),
        ("training", f"{run.steps:,} steps, {format_count(run.tokens)} tokens, {length} without queue waits"),
        (
            "jobs",
            f"{len(plan.segments)} on {plan.plan.nodes} nodes of {where.node_group} in partition {where.partition}",
        ),
        ("each job", f"limit {limit}, checkpoint every {run.checkpoint_interval_steps:,} steps"),
        ("search", f"{search.candidates:,} shardings in {planned.seconds:.2f} s; dropped {pruned}"),
    ]
    evidence = (plan.provenance.constants.name or "").partition(" (evidence: ")[2].removesuffix(")")
    if evidence:
        rows.append(("evidence", evidence))
    if run.cost is not None:
        energy = f", {run.energy_kwh:,.0f} kWh" if run.energy_kwh is not None else ""
        rows.insert(2, ("cost", f"{run.cost:,.0f} {run.currency}{energy}"))
    return table(None, ("the run", ""), rows)
