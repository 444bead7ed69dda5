"""``hpcplan calibrate bench``: measure a site, by a job or on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.calibrate.bench import Bench
    from hpcplan.site.load import LoadedSite
    from hpcplan.slurm.backend import Backend

__all__ = ["bench_command"]

_LIMIT_S, _QUICK_LIMIT_S = 1800, 600


@click.command("bench")
@click.option("--site", "site_name", required=True, metavar="SITE", help="A site's name or file.")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--partition", help="The Slurm partition; the site's default if absent.")
@click.option("--node-group", help="The node group of a mixed partition.")
@click.option("--nodes", type=click.IntRange(1), default=2, show_default=True, help="How many nodes to measure.")
@click.option("--local", is_flag=True, help="Measure this machine, now, without Slurm.")
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="With --local: how many.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="What to measure; auto takes CUDA where PyTorch finds it.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Fewer and smaller measurements: a minute instead of ten.")
@click.option("--storage", metavar="DIR", help="Write and read a file here; the site's storage if absent.")
@click.option("--python", default="python3", show_default=True, metavar="WORDS", help="What runs it in the job.")
@click.option("--read", "read_from", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Read what a job has left in its directory.")  # fmt: skip
@click.option("-o", "--output", "directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="The job's directory, which all nodes see.")  # fmt: skip
@click.option("--render-only", is_flag=True, help="Write the job, and do not submit it.")
@click.option("--wait", "waiting", is_flag=True, help="Wait for the job's end, and read what it left.")
@backend_option
@format_option
def bench_command(
    site_name: str, sites_dir: Path | None, partition: str | None, node_group: str | None, nodes: int, local: bool,
    processes: int, device: str, quick: bool, storage: str | None, python: str, read_from: Path | None,
    directory: Path | None, render_only: bool, waiting: bool, backend_name: str, output_format: str,
) -> None:  # fmt: skip
    """Measure a site: products, memory, collectives, every pair of nodes, storage.

    A short job measures and leaves its figures in DIR; --read (or --wait) takes them up: nodes and links that are slow
    are named, the figures are kept beside the user's site files with date and nodes, and where accelerators were
    measured, every later plan for the site uses them.

    \b
    Examples:
      hpcplan calibrate bench --site mysite.yaml --nodes 4 -o bench
      hpcplan calibrate bench --site mysite.yaml --read bench
      hpcplan calibrate bench --site mixed-lab --local --quick
    """
    import shutil

    from hpcplan.errors import InputError
    from hpcplan.site import load_site

    site = load_site(site_name, sites_dir)
    options = ["--device", device, *(["--quick"] if quick else [])]
    place = storage or (site.site.storage.path if site.site.storage else None)
    if read_from is not None:
        _take_up(site, partition, node_group, read_from, output_format)
        return
    if local:
        folder = _run_here(processes, [*options, *(["--storage", storage] if storage else [])])
        try:
            _take_up(site, partition, node_group, folder, output_format)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if directory is None:
        raise InputError("say where the job runs and leaves its figures: -o DIR (or measure this machine: --local)")
    words = [*options, *(["--storage", place] if place else [])]
    script = _write_job(site, partition, node_group, nodes, device, python.split(), words, quick, directory)
    if render_only:
        _say_job(directory, None, output_format)
        return
    job_id, backend = _submit(directory, script, backend_name)
    if not waiting:
        _say_job(directory, job_id, output_format)
        narrate(f"next, when it has ended: hpcplan calibrate bench --site {site_name} --read {directory}")
        return
    _await_end(backend, job_id, directory)
    _take_up(site, partition, node_group, directory, output_format)


def _say_job(directory: Path, job_id: int | None, output_format: str) -> None:
    if output_format == "json":
        echo_json({"directory": str(directory.resolve()), "job_id": job_id})
    else:
        click.echo(f"wrote {directory}/bench.sbatch" + ("" if job_id is None else f", submitted as job {job_id}"))


def _group(site: LoadedSite, partition: str | None, node_group: str | None) -> tuple[str, str]:
    from hpcplan.errors import InputError, nearest

    name = partition or site.site.default_partition()
    if name not in site.site.partitions:
        raise InputError(f"site {site.site.name!r} has no partition {name!r}" + nearest(name, site.site.partitions))
    groups = site.site.partitions[name].nodes
    if node_group is not None and node_group not in groups:
        raise InputError(f"partition {name!r} has no node group {node_group!r}" + nearest(node_group, groups))
    with_chips = [group for group in groups if site.site.node_groups[group].accelerators is not None]
    return name, node_group or (with_chips or list(groups))[0]


def _write_job(
    site: LoadedSite, partition: str | None, node_group: str | None, nodes: int, device: str, python: list[str],
    options: list[str], quick: bool, directory: Path,
) -> Path:  # fmt: skip
    from hpcplan import __version__
    from hpcplan.documents import write_text
    from hpcplan.errors import InputError
    from hpcplan.render.environment import render_template, source_text, template_environment

    name, group = _group(site, partition, node_group)
    s, node = site.site, site.site.node_groups[group]
    most = len(node.hostnames())
    if nodes > most:
        raise InputError(f"{nodes} nodes were asked for; node group {group!r} has {most}")
    chips = None if device == "cpu" else node.accelerators
    tasks = chips.count if chips is not None else 1
    kind = chips.gres if chips is not None else None
    gres = None
    if chips is not None and s.slurm.gpu_request == "gres":
        gres = f"gpu:{kind}:{chips.count}" if kind else f"gpu:{chips.count}"
    limits = [_QUICK_LIMIT_S if quick else _LIMIT_S, s.partitions[name].max_time_s or _LIMIT_S]
    several = sum(s.node_groups[g].accelerators is not None for g in s.partitions[name].nodes) > 1
    environment = template_environment(slurm_version=s.slurm.version)
    text = render_template(
        environment,
        "bench/bench.sbatch.j2",
        {
            "version": __version__, "partition": name, "account": s.slurm.account, "qos": s.slurm.qos, "nodes": nodes,
            "tasks_per_node": tasks, "cpus_per_task": max(1, node.cpus // tasks), "gres": gres,
            "gpus_per_node": tasks if chips is not None and s.slurm.gpu_request == "gpus-per-node" else None,
            "features": node.features[0] if several and node.features else None, "time_limit_s": int(min(limits)),
            "expected_s": 60 if quick else 600, "modules": s.environment.modules, "setup": s.environment.setup,
            "variables": s.environment.variables, "container": s.environment.container, "python": python,
            "options": options,
        },
    )  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    old = sorted(directory.glob("bench-*.json")) + sorted(directory.glob("port-*")) + sorted(directory.glob("host-*"))
    for path in [*old, directory / "torch-store"]:
        path.unlink(missing_ok=True)  # of an earlier run: the processes must not find each other's old places
    write_text(directory / "site_bench.py", source_text(environment, "bench/site_bench.py"))
    write_text(directory / "bench.sbatch", text)
    return directory / "bench.sbatch"


def _submit(directory: Path, script: Path, backend_name: str) -> tuple[int, Backend]:
    from hpcplan.cli.backends import open_backend
    from hpcplan.slurm.records import Submission

    backend = open_backend(backend_name)
    return backend.submit(Submission(str(script.resolve()), str(directory.resolve()))), backend


def _await_end(backend: Backend, job_id: int, directory: Path) -> None:
    import time

    from hpcplan.errors import HpcplanError
    from hpcplan.slurm.records import JobState

    since = backend.now() - 60
    with progress(f"job {job_id}"):
        while True:
            found = backend.jobs([job_id], since=since)
            if found and found[0].state.final:
                break
            time.sleep(2.0)
    if found[0].state is not JobState.COMPLETED:
        output = directory / f"hpcplan-bench-{job_id}.out"
        raise HpcplanError(f"job {job_id} ended as {found[0].state}{_cause(output)}", hint=f"its output is in {output}")


def _cause(output: Path) -> str:
    """Return what a job's output says went wrong: its first line that names an error of the program."""
    import re

    with contextlib.suppress(OSError):  # not there, or not yet seen here
        for line in output.read_text(errors="replace").splitlines():
            if re.match(r"\w*(Error|Exception|Interrupt)\b|--\w+[ \w]*:|.*(command not found|No such file)", line):
                return f": {line.strip()}"
    return ""


def _run_here(processes: int, options: list[str]) -> Path:
    """Measure on this machine; return the folder with the figures."""
    import os
    import subprocess
    import sys
    import tempfile

    from hpcplan.errors import HpcplanError
    from hpcplan.resources import shipped

    folder = Path(tempfile.mkdtemp(prefix="hpcplan-bench-"))
    program = shipped("templates") / "bench" / "site_bench.py"
    threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    words = [sys.executable, str(program), "--out", str(folder), "--ranks", str(processes), *options]
    with progress("measuring"):
        running = [
            subprocess.Popen([*words, "--rank", str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
            for rank in range(processes)
        ]
        failed = ""
        for process in running:
            _, err = process.communicate()
            if process.returncode and not failed:
                failed = (err.strip().splitlines() or [f"status {process.returncode}"])[-1]
                for other in running:
                    other.terminate()
    if failed:
        raise HpcplanError(f"the measurement failed: {failed}")
    return folder


def _take_up(site: LoadedSite, partition: str | None, node_group: str | None, folder: Path, output_format: str) -> None:
    """Read the figures, keep them, and show them."""
    import json

    from hpcplan.calibrate.bench import read_bench
    from hpcplan.calibrate.bench_constants import factors_of
    from hpcplan.calibrate.evidence import day_of, evidence_folder, merge_bench
    from hpcplan.documents import write_text

    bench = read_bench(folder)
    _, group = _group(site, partition, node_group)
    found = factors_of(bench, site.site, group)
    words = f"bench {day_of(bench.time)} on {len(bench.nodes)} node{'s' if len(bench.nodes) > 1 else ''}"
    words += f" ({', '.join(bench.nodes[:4])}{', ...' if len(bench.nodes) > 4 else ''}; {bench.device_name})"
    factors = {name: {"factor": factor, "source": source} for name, (factor, source) in found.factors.items()}
    data = {
        "site": site.site.name, "node_group": group, "evidence": words, **bench.as_dict(), "factors": factors,
        "notes": list(found.notes),
    }  # fmt: skip
    kept = evidence_folder(site.site.name) / f"bench-{day_of(bench.time)}-{bench.time}.json"
    write_text(kept, json.dumps(data, indent=1) + "\n")
    data["kept"] = str(kept)
    if found.factors:
        data["constants"] = str(merge_bench(site.site.name, found.factors, words))
    if output_format == "json":
        echo_json(data)
        return
    _show(bench, data)


def _show(bench: Bench, data: dict[str, Any]) -> None:
    out = console()
    rows: list[tuple[object, ...]] = [
        (f.what, _rate(f.rate, "FLOP/s"), _rate(f.least, "FLOP/s"), f.count) for f in bench.gemms()
    ]
    rows += [(f"attention {f.what}", _rate(f.rate, "FLOP/s"), _rate(f.least, "FLOP/s"), f.count)
             for f in bench.attentions()]  # fmt: skip
    rows += [(f"memory {f.what}", _rate(f.rate, "B/s"), _rate(f.least, "B/s"), f.count) for f in bench.memory()]
    collectives = bench.collectives()
    rows += [(f.what, _rate(f.rate, "B/s"), _rate(f.least, "B/s"), f.count) for f in collectives]
    rows += [(f"storage {key.split('_')[0]}", _rate(rate, "B/s"), "", "") for key, rate in bench.storage().items()]
    out.print(table(data["evidence"], ("measured", ">median", ">least", ">of"), rows))
    slow = [(s["where"], s["what"], _rate(s["rate"], ""), f"{s['share']:.0%}") for s in data["slow"]]
    if slow:
        out.print(table("slow", ("where", "what", ">rate", ">of the others'"), slow))
    else:
        out.print("Nothing is slow beside the others.")
    for name, entry in data["factors"].items():
        out.print(f"{name}: x {entry['factor']:.3f} ({entry['source']})", markup=False)
    for note in data["notes"]:
        out.print(f"Note: {note}.", markup=False)
    narrate(f"kept in {data['kept']}" + (f"; plans use {data['constants']}" if "constants" in data else ""))


def _rate(value: float, unit: str) -> str:
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
