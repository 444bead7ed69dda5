"""``hpcplan allocate``: several workloads share a site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress_bar, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcplan.documents import Document
    from hpcplan.schedule.sharing import Outcome, Policy, Pricing, Problem, Wanted

__all__ = ["command"]

_POLICIES = ("equal", "priority", "proportional", "optimal", "all")
_OBJECTIVES = ("makespan", "weighted-completion", "throughput", "cost", "energy")


@click.command()
@click.argument("portfolio", metavar="PORTFOLIO", type=click.Path(path_type=Path))
@click.option("--site", "site_name", metavar="SITE", help="A site's name or file.")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option(
    "--policy", "policies", type=click.Choice(_POLICIES), multiple=True, default=("all",), show_default=True,
    help="How to share; several may be given, and are compared. -o writes the last.",
)  # fmt: skip
@click.option(
    "--objective", type=click.Choice(_OBJECTIVES), default="makespan", show_default=True,
    help="What the optimum makes least (throughput: most).",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["static", "dynamic", "elastic"]), default="static", show_default=True,
    help="Decided once; again at each arrival and end; or with nodes changed at checkpoints, too.",
)  # fmt: skip
@click.option("--horizon", metavar="TIME", help="When throughput is counted, as in '7 d'.")
@click.option("--spread", type=click.FloatRange(0, 2), default=0.0, show_default=True,
              help="Of real over predicted run times, as a standard deviation of the logarithm.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of those, and of the search.")
@click.option("--time-limit", metavar="TIME", default="30 s", show_default=True, help="Of the integer programs.")
@click.option("--constants", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
              help="Constants of your own, from 'hpcplan calibrate'.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw who has what: .svg, .png or .pdf.")
@click.option("-o", "--output", "directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write a rendered campaign for each workload here.")  # fmt: skip
@format_option
def command(
    portfolio: Path, site_name: str | None, sites_dir: Path | None, policies: tuple[str, ...], objective: Any,
    mode: Any, horizon: str | None, spread: float, seed: int, time_limit: str, constants: Path | None,
    plot: Path | None, directory: Path | None, output_format: str,
) -> None:  # fmt: skip
    """Share a site among several workloads.

    PORTFOLIO is a YAML file with the workloads, their priorities, deadlines, budgets and arrivals. Equal shares, shares
    by priority and by work are compared with the optimum, each simulated. A file of 'hpcplan share' (work that can be
    cut anywhere) needs no site.

    \b
    Examples:
      hpcplan allocate portfolio.yaml --site mixed-lab
      hpcplan allocate portfolio.yaml --site mixed-lab --objective weighted-completion --plot who.svg
      hpcplan allocate portfolio.yaml --site mixed-lab --policy optimal -o campaigns
      hpcplan allocate portfolio.yaml --site mixed-lab --policy equal --policy optimal
      hpcplan allocate three-nodes.yaml
    """
    from hpcplan.documents import read_document
    from hpcplan.errors import InputError

    document = read_document(portfolio)
    chosen: list[Any] = list(_POLICIES[:-1]) if "all" in policies else list(dict.fromkeys(policies))
    if isinstance(document.value, dict) and "pools" in document.value:
        given = {"--site": site_name, "-o": directory, "--horizon": horizon}
        wrong = [name for name, value in given.items() if value is not None]
        if wrong or mode != "static" or objective != "makespan":
            what = wrong[0] if wrong else "--mode" if mode != "static" else "--objective"
            raise InputError(f"{portfolio} divides one piece of work over nodes of its own; {what} does not apply")
        _divisible(portfolio, chosen, plot, output_format)
        return
    if site_name is None:
        raise click.UsageError("Missing option '--site'.")
    _workloads(
        document, portfolio, site_name, sites_dir, chosen, objective, mode, horizon, spread, seed, time_limit,
        constants, plot, directory, output_format,
    )  # fmt: skip


def _workloads(
    document: Document, path: Path, site_name: str, sites_dir: Path | None, policies: list[Policy], objective: Any,
    mode: Any, horizon: str | None, spread: float, seed: int, time_limit: str, constants: Path | None,
    plot: Path | None, directory: Path | None, output_format: str,
) -> None:  # fmt: skip
    import dataclasses

    from hpcplan.cli.learned import evidence_words
    from hpcplan.schedule.sharing import Pricing, compare, read_portfolio
    from hpcplan.schedule.sharing.impossible import refuse_impossible, refuse_unmet
    from hpcplan.schedule.sharing.picture import check_picture, draw_outcomes
    from hpcplan.site import load_site

    if plot is not None:
        check_picture(plot)
    portfolio, wanted = read_portfolio(path, document)
    site = load_site(site_name, sites_dir)
    pricing = Pricing(site, constants)
    with progress_bar("pricing", len(wanted)) as done:
        problem = pricing.problem(portfolio, wanted, done)
    if horizon is not None:
        problem = dataclasses.replace(problem, horizon_s=_duration(horizon, "--horizon"))
    refuse_impossible(problem, site.site.prices.currency)
    with progress_bar("allocating", len(policies)) as done:
        outcomes = compare(
            problem, policies, objective, mode, spread=spread, seed=seed,
            time_limit_s=_duration(time_limit, "--time-limit"), on_policy=done,
        )  # fmt: skip
    for outcome in outcomes:
        if outcome.solution is not None:
            refuse_unmet(problem, outcome.solution)
    if plot is not None:
        draw_outcomes(problem, outcomes, plot, title=f"{portfolio.name} on {site.site.name}")
        narrate(f"drew {plot}")
    data = {
        "portfolio": portfolio.name,
        "site": site.site.name,
        "objective": objective,
        "mode": mode,
        "currency": site.site.prices.currency,
        "evidence": [] if constants is not None else [*evidence_words(site.site.name)],
        "pools": dict(problem.pools),
        "workloads": [_job_data(problem, j) for j in range(len(problem.jobs))],
        "policies": [_outcome_data(problem, outcome, objective) for outcome in outcomes],
    }
    if output_format == "table":
        _show(problem, outcomes, objective, site.site.prices.currency)
        if data["evidence"]:
            console().print(f"Evidence: {'; '.join(data['evidence'])}.", markup=False)
    if directory is not None:
        _write(pricing, wanted, outcomes[-1], constants, directory, data)
    if output_format == "json":
        echo_json(data)


def _duration(text: str, option: str) -> float:
    from hpcplan.errors import InputError
    from hpcplan.units import parse_duration

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if found <= 0:
        raise InputError(f"{option}: must be more than zero")
    return found


def _job_data(problem: Problem, index: int) -> dict[str, Any]:
    import dataclasses

    job = problem.jobs[index]
    return {
        "name": job.name, "priority": job.priority, "weight": job.weight, "arrival_s": job.arrival_s,
        "deadline_s": job.deadline_s, "budget": job.budget, "checkpoint_s": round(job.checkpoint_s, 1),
        "restart_s": round(job.restart_s, 1), "curve": [dataclasses.asdict(option) for option in job.options],
    }  # fmt: skip


def _outcome_data(problem: Problem, outcome: Outcome, objective: str) -> dict[str, Any]:
    from hpcplan.schedule.sharing.nodes import node_numbers

    numbers = node_numbers(problem, outcome.runs)
    solution = outcome.solution
    bound = None if solution is None else {
        "planned": solution.value, "bound": solution.bound, "gap": solution.gap, "proved": solution.proved,
        "method": solution.method,
    }  # fmt: skip
    return {
        "policy": outcome.policy,
        "mode": outcome.mode,
        "value": outcome.value,
        "optimum": bound,
        "makespan_s": outcome.makespan_s,
        "weighted_completion_s": outcome.weighted_completion_s,
        "cost": outcome.cost,
        "energy_kwh": outcome.energy_kwh,
        "missed": list(outcome.missed),
        "fairness": {"jain": outcome.fairness.jain, "worst_rho": outcome.fairness.worst_rho},
        "nodes_used": outcome.used,
        "resizes": outcome.resizes,
        "allocations": [
            {
                "workload": problem.jobs[run.job].name,
                "start_s": run.start_s,
                "end_s": run.end_s,
                "cost": run.cost(),
                "energy_kwh": run.energy_kwh(),
                "rho": outcome.fairness.rho[place],
                "pieces": [
                    {
                        "pool": piece.option.pool, "nodes": piece.option.nodes, "start_s": piece.start_s,
                        "end_s": piece.end_s, "node_numbers": numbers[run.job, number],
                    }
                    for number, piece in enumerate(run.pieces)
                ],
            }
            for place, run in enumerate(outcome.runs)
        ],
    }  # fmt: skip


def _show(problem: Problem, outcomes: Sequence[Outcome], objective: str, currency: str) -> None:
    out = console()
    out.print(_comparison(outcomes, objective, currency))
    last = outcomes[-1]
    if last.solution is not None:
        out.print(_bound_line(last, objective, currency), markup=False)
    out.print(_allocation(problem, last, currency))


def _value(value: float, objective: str, currency: str) -> str:
    from hpcplan.units import format_duration

    if objective == "makespan":
        return format_duration(value)
    if objective == "weighted-completion":
        return f"{value / 3600:,.1f} weighted h"
    return {"throughput": f"{value:,.2f} a day", "cost": f"{value:,.0f} {currency}", "energy": f"{value:,.0f} kWh"}[
        objective
    ]


def _comparison(outcomes: Sequence[Outcome], objective: str, currency: str) -> Any:
    from hpcplan.units import format_duration

    sign = -1 if objective == "throughput" else 1
    best = min((outcome.value for outcome in outcomes), key=lambda value: sign * value)
    rows: list[tuple[object, ...]] = []
    for o in outcomes:
        apart = "" if not best else f"{o.value / best - 1:+.1%}"
        cost = "" if o.cost is None else f"{o.cost:,.0f} {currency}"
        energy = "" if o.energy_kwh is None else f"{o.energy_kwh:,.0f} kWh"
        missed = f"{len(o.missed)}: {', '.join(o.missed[:3])}" if o.missed else "none"
        rows.append(
            (
                o.policy, _value(o.value, objective, currency), apart, format_duration(o.makespan_s), cost, energy,
                f"{o.fairness.jain:.2f}", f"{o.fairness.worst_rho:.2f}", f"{o.used:.0%}", o.resizes or "", missed,
            )
        )  # fmt: skip
    columns = ("policy", f">{objective}", ">against the best", ">all done in", ">cost", ">energy", ">Jain",
               ">worst rho", ">nodes used", ">resizes", "missed")  # fmt: skip
    mode = outcomes[0].mode
    return table(f"Each policy, simulated ({mode})", columns, rows)


def _bound_line(outcome: Outcome, objective: str, currency: str) -> str:
    s = outcome.solution
    assert s is not None
    if s.proved:
        return "The optimum is proved: no schedule on fixed nodes is better."
    side = "above" if objective == "throughput" else "below"
    bound = _value(s.bound, objective, currency)
    return f"No schedule on fixed nodes is {side} {bound}; the plan is within {s.gap:.1%} of that."


def _allocation(problem: Problem, outcome: Outcome, currency: str) -> Any:
    from hpcplan.units import format_duration

    rows: list[tuple[object, ...]] = []
    ordered = sorted(zip(outcome.runs, outcome.fairness.rho, strict=True), key=lambda e: (e[0].start_s, e[0].job))
    for run, rho in ordered[:40]:
        job, cost = problem.jobs[run.job], run.cost()
        where = " then ".join(f"{piece.option.nodes} x {piece.option.pool}" for piece in run.pieces[:4])
        where += f" and {len(run.pieces) - 4} more" if len(run.pieces) > 4 else ""
        due = "" if job.deadline_s is None else format_duration(job.deadline_s)
        rows.append(
            (
                job.name, where, format_duration(run.start_s), format_duration(run.end_s), due,
                "" if cost is None else f"{cost:,.0f} {currency}", f"{rho:.2f}",
            )
        )  # fmt: skip
    if len(outcome.runs) > len(rows):
        rows.append((f"… {len(outcome.runs) - len(rows)} more",))
    columns = ("workload", "nodes", ">from", ">to", ">deadline", ">cost", ">rho")
    return table(f"Who has what under {outcome.policy}", columns, rows)


def _write(
    pricing: Pricing, wanted: Sequence[Wanted], outcome: Outcome, constants: Path | None, directory: Path,
    data: dict[str, Any],
) -> None:  # fmt: skip
    import json
    import re

    from hpcplan.documents import write_text
    from hpcplan.errors import ConflictError
    from hpcplan.render import render_plan, write_campaign
    from hpcplan.schedule.sharing.campaigns import plans_of

    typed = " ".join(["hpcplan", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "hpcplan" else ""
    with progress_bar("planning", len(wanted)) as done:
        plans = plans_of(pricing, wanted, outcome.runs, constants_folder=constants, command=typed, on_plan=done)
    folders: dict[str, str] = {}
    taken = [path.parent for path in sorted(directory.glob("*/journal.jsonl"))]
    if taken:
        message = f"{taken[0]}: this campaign was submitted; its scripts must not change under its jobs"
        raise ConflictError(message, hint="write the allocation into a new directory")
    for name, plan in plans:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "workload"
        folder = plain if plain not in folders.values() else f"{plain}-{len(folders) + 1}"
        folders[name] = folder
        (directory / folder).mkdir(parents=True, exist_ok=True)
        write_campaign(render_plan(plan), directory / folder)
    data["campaigns"] = [{"workload": name, "directory": str(directory / folder)} for name, folder in folders.items()]
    write_text(directory / "allocation.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    narrate(f"wrote {len(plans)} campaigns under {directory}, and allocation.json; submit them in this order:")
    for folder in folders.values():
        narrate(f"  hpcplan submit {directory / folder}")


def _divisible(path: Path, policies: list[Policy], plot: Path | None, output_format: str) -> None:
    from hpcplan.partition.pools_file import read_pools
    from hpcplan.schedule.sharing.divisible import share_divisible
    from hpcplan.schedule.sharing.picture import draw_outcomes

    case = read_pools(path)
    found = share_divisible(
        [entry.pool() for entry in case.pools], case.work_s / 3600, float(case.data_bytes or 0), case.max_rounds
    )
    found = [entry for entry in found if entry[1].policy in policies]
    if plot is not None:
        draw_outcomes(found[0][0], [outcome for _, outcome, _ in found], plot, title=path.stem)
        narrate(f"drew {plot}")
    if output_format == "table":
        console().print(_comparison([outcome for _, outcome, _ in found], "makespan", ""))
    else:
        entries = []
        for problem, outcome, shares in found:
            parts = [{"pool": p.name, "work_h": work, "data_bytes": size, "end_s": hours * 3600}
                     for p, work, size, hours in zip(case.pools, shares.work_h, shares.data_bytes, shares.finish_h,
                                                     strict=True)]  # fmt: skip
            entries.append(_outcome_data(problem, outcome, "makespan") | {"rounds": shares.rounds, "shares": parts})
        pools = {entry.name: 1 for entry in case.pools}
        echo_json({"portfolio": path.stem, "site": None, "objective": "makespan", "mode": "static", "pools": pools,
                   "policies": entries})  # fmt: skip
