"""The demo: plan, render, submit, track and report, each step with what a person would type for it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.campaign import status, submit
from hpcplan.campaign.status import CampaignStatus
from hpcplan.demo.picture import Turn, draw_loop
from hpcplan.documents import write_text
from hpcplan.errors import ConflictError, HpcplanError
from hpcplan.plan import Plan
from hpcplan.render import render_plan, write_campaign
from hpcplan.report import build_report
from hpcplan.report import render as render_report
from hpcplan.schedule.planner import Planned, make_plan
from hpcplan.simulate.backend import MockBackend
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site import load_site
from hpcplan.site.draw import draw_topology
from hpcplan.site.topology import build_topology
from hpcplan.units import format_bytes, format_count, format_duration
from hpcplan.workload import load_workload
from hpcplan.workload.model import Workload

__all__ = ["Step", "demo_folder", "run_demo"]

WORKLOAD: Final = "llama3-8b"
SITE: Final = "superpod-h100"
NODES: Final = 16
TOKENS: Final = 300_000_000_000
LOAD: Final = 0.9
HISTORY_S: Final = 86_400
_TICK_S: Final = 3 * 3600
_LONGEST_S: Final = 60 * 86_400  # a mock cluster that never lets the jobs start must not keep the demo for ever


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the demo, done: what it is, what to type for it, and what came of it."""

    title: str
    command: str
    lines: tuple[str, ...]


def demo_folder(parent: Path) -> Path:
    """Return a folder for the demo's files that is not there yet: ``hpcplan-demo``, ``hpcplan-demo-2``, …"""
    number = 1
    while True:
        folder = parent / ("hpcplan-demo" if number == 1 else f"hpcplan-demo-{number}")
        if not folder.exists():
            return folder
        number += 1


def run_demo(folder: Path) -> Iterator[Step]:
    """Run the loop once and yield each step when it is done; everything is written under ``folder``.

    Raises:
        ConflictError: ``folder`` is not empty.
        HpcplanError: it cannot be written, or the jobs do not end.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"{folder}: is not empty", hint="name another folder, or leave it out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HpcplanError(f"{folder}: cannot be made: {error.strerror}") from None
    planned = _plan(folder)
    yield _planned_step(folder, planned)
    campaign = folder / "campaign"
    files = render_plan(planned.plan)
    write_campaign(files, campaign)
    yield _rendered_step(folder, campaign, files)
    backend, mock_step = _start(folder)
    yield mock_step
    submitted_at = backend.now()
    jobs = submit(campaign, backend, settle_s=0.0)
    yield Step(
        "Submit",
        f"hpcplan submit {_shown(campaign)} --backend mock",
        (f"jobs {', '.join(str(job.job_id) for job in jobs)}, each waiting for the one before",),
    )
    history, final = _track(campaign, backend)
    yield Step("Track", f"hpcplan mock advance --until-idle; hpcplan status {_shown(campaign)}", history)
    yield _report(folder, backend, planned.plan, final, submitted_at)


def _shown(path: Path) -> str:
    """Return a path as one would type it from here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _plan(folder: Path) -> Planned:
    loaded = load_workload(WORKLOAD)
    data = loaded.workload.model_dump()
    data["training"]["tokens"] = TOKENS
    smaller = dataclasses.replace(loaded, workload=Workload.model_validate(data))
    command = f"hpcplan plan {WORKLOAD} --site {SITE} --nodes {NODES} --tokens {TOKENS // 10**9}B"
    planned = make_plan(smaller, load_site(SITE), nodes=(NODES, NODES), command=command)
    write_text(folder / "plan.json", planned.plan.text())
    site = load_site(SITE).site
    draw_topology(site, build_topology(site), folder / "topology.svg")
    return planned


def _planned_step(folder: Path, planned: Planned) -> Step:
    plan, best, estimate = planned.plan, planned.plan.plan, planned.plan.estimate
    found, run = plan.search, plan.training
    searched = f"{found.candidates:,} shardings of {WORKLOAD} on {best.gpus} GPUs in {planned.seconds:.2f} s"
    sharding = f"tp {best.tp} x pp {best.pp} x cp {best.cp} x dp {best.dp}, micro-batch {best.micro_batch}"
    step_s, low, high = (format_duration(value) for value in (estimate.iter_time_s, estimate.low, estimate.high))
    rate = f"{format_count(estimate.tokens_per_s)} tokens/s, MFU {estimate.mfu:.0%}"
    cost = "" if run.cost is None else f", {run.cost:,.0f} {run.currency}"
    length = format_duration(run.time_to_train_s)
    return Step(
        "Plan",
        f"{plan.provenance.command} -o {_shown(folder / 'plan.json')}",
        (
            f"{searched}, {found.feasible:,} fit",
            f"best: {sharding}, recompute {best.recompute}",
            f"{step_s} a step (90 %: {low} to {high}), {rate}",
            f"{format_bytes(estimate.memory_bytes)} on the fullest GPU",
            f"{run.steps:,} steps in {len(plan.segments)} jobs, {length}{cost}",
        ),
    )


def _rendered_step(folder: Path, campaign: Path, files: dict[str, str]) -> Step:
    scripts = sorted(name for name in files if name.endswith(".sbatch"))
    return Step(
        "Render",
        f"hpcplan render {_shown(folder / 'plan.json')} -o {_shown(campaign)}",
        (f"{len(scripts)} sbatch scripts ({', '.join(scripts)}) with Megatron-LM's arguments",),
    )


def _start(folder: Path) -> tuple[MockBackend, Step]:
    options = StartOptions(load=LOAD, history_s=HISTORY_S, speed=0.0)
    store = start_cluster(load_site(SITE), options, directory=folder / "mock")
    backend = MockBackend(store)
    seen = backend.status()
    busy = "" if seen.utilisation is None else f", {seen.utilisation:.0%} of them busy"
    mock = _shown((folder / "mock").resolve())
    return backend, Step(
        "A mock cluster",
        f"export HPCPLAN_MOCK={mock}; hpcplan mock start {SITE} --load {LOAD} --history 24h --speed 0",
        (f"{sum(seen.nodes.values())} nodes{busy}; {sum(seen.jobs.values()):,} jobs of other users in the last day",),
    )


def _track(campaign: Path, backend: MockBackend) -> tuple[tuple[str, ...], CampaignStatus]:
    """Move the clock until every job has ended; return what was seen on the way, and the end."""
    seen: list[str] = []
    began = backend.now()
    last: tuple[str, ...] = ()
    while True:
        current = status(campaign, backend)
        states = tuple(f"{job.job_id} {job.state}" for job in current.jobs)
        if states != last:
            seen.append(f"after {format_duration(backend.now() - began):>10}: {', '.join(states)}")
            last = states
        if not current.moving:
            return tuple(seen), current
        if backend.now() - began > _LONGEST_S:
            raise HpcplanError(f"the jobs have not ended after {format_duration(_LONGEST_S)} on the mock cluster")
        backend.advance(_TICK_S)


def _report(folder: Path, backend: MockBackend, plan: Plan, final: CampaignStatus, submitted_at: int) -> Step:
    end = backend.now()
    start = submitted_at - HISTORY_S
    site = load_site(SITE).site
    prices = {
        host: group.price_per_hour
        for group in site.node_groups.values()
        if group.price_per_hour is not None
        for host in group.hostnames()
    }
    records = backend.accounting(start, end)
    report = build_report(
        records, start=start, end=end, nodes=backend.nodes(), price_per_node_hour=prices, currency=site.prices.currency
    )
    for kind in ("html", "md", "json"):
        write_text(folder / f"report.{kind}", render_report(report, kind))
    own = {job.job_id for job in final.jobs}
    mine = [record for record in records if record.job_id in own]
    ran = sum(record.elapsed_s(end) or 0 for record in mine)
    waited = sum(record.eligible_wait_s(end) or 0 for record in mine)
    use = report.node_utilisation.value
    median = report.wait.median
    draw_loop(
        Turn(plan=plan, scripts=len(plan.segments), jobs=tuple(sorted(job_id for job_id in own if job_id)),
             state=final.state.value, waited_s=waited, ran_s=ran, utilisation=use),
        folder / "loop.svg",
    )  # fmt: skip
    off = ran / plan.training.time_to_train_s - 1
    wait = "unknown" if median is None else format_duration(median)
    pictures = ", ".join(_shown(folder / name) for name in ("report.html", "loop.svg", "topology.svg"))
    return Step(
        "Report",
        f"hpcplan report --since {(end - start) // 3600}h -o {_shown(folder / 'report.html')}",
        (
            f"{report.jobs.total:,} jobs; nodes used {_percent(use)}; median wait {wait}",
            f"our campaign: {final.state.value}; it ran {format_duration(ran)}, {off:+.1%} against the plan",
            "(a mock cluster runs jobs for as long as the plan says, so this is no test of the cost model)",
            f"see {pictures}",
        ),
    )


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"
