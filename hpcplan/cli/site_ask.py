"""``hpcplan site ask``: what the topology of a site says of bandwidth, neighbours and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import echo_json, format_option

if TYPE_CHECKING:
    from hpcplan.site.topology import Topology

__all__ = ["command"]


@click.command("ask")
@click.argument("site")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--between", nargs=2, metavar="NODES NODES", help="Bandwidth and latency between two nodes, or two sets.")
@click.option("--bisection", metavar="NODES", help="Bandwidth between the halves of these nodes, the worst way.")
@click.option("--job", "jobs", multiple=True, metavar="NODES", help="What each of several rings gets. Several times.")
@click.option("--best", type=click.IntRange(min=1), metavar="COUNT", help="The nodes that are closest together.")
@click.option("--busy", metavar="NODES", help="For --best: nodes that are taken, beside the drained ones.")
@click.option("--without", metavar="NAME[:NAME]", help="What a failed switch or node costs, or the link of two.")
@click.option("--cables", type=click.IntRange(min=1), metavar="COUNT", help="For --without A:B: so many of its cables.")
@format_option
def command(
    site: str, sites_dir: Path | None, between: tuple[str, str] | None, bisection: str | None, jobs: tuple[str, ...],
    best: int | None, busy: str | None, without: str | None, cables: int | None, output_format: str,
) -> None:  # fmt: skip
    """Answer questions about a site's topology; NODES are Slurm hostlists.

    \b
    Example:
      hpcplan site ask superpod-h100 --between dgx001 dgx128
      hpcplan site ask superpod-h100 --between 'dgx[001-032]' 'dgx[033-064]' --bisection 'dgx[001-064]'
      hpcplan site ask superpod-h100 --best 16 --busy 'dgx[001-020]'
      hpcplan site ask superpod-h100 --job 'dgx[001,033]' --job 'dgx[002,034]'
      hpcplan site ask superpod-h100 --without unit1.1
    """
    from hpcplan.site.load import load_site
    from hpcplan.site.topology import build_topology

    if busy and best is None:
        raise click.UsageError("--busy is for --best")
    if cables is not None and (without is None or ":" not in without):
        raise click.UsageError("--cables is for --without A:B")
    topology = build_topology(load_site(site, sites_dir).site)
    answers: dict[str, Any] = {}
    with _wrong_names_are_input():
        if between:
            answers["between"] = _between(topology, _hosts(between[0]), _hosts(between[1]))
        if bisection:
            answers["bisection"] = _bisection(topology, _hosts(bisection))
        if jobs:
            answers["jobs"] = _jobs(topology, [_hosts(job) for job in jobs])
        if best is not None:
            answers["best"] = _best(topology, best, _hosts(busy) if busy else [])
        if without:
            answers["without"] = _without(topology, without, cables)
    if not answers:
        raise click.UsageError("ask something: --between, --bisection, --job, --best or --without")
    if output_format == "json":
        echo_json(answers)
    else:
        for what, answer in answers.items():
            for line in _WORDS[what](answer):
                click.echo(line)


@contextmanager
def _wrong_names_are_input() -> Iterator[None]:
    from hpcplan.errors import HpcplanError, InputError

    try:
        yield
    except HpcplanError as error:
        if type(error) is HpcplanError:  # a name that is not the site's, or a set that is none
            raise InputError(str(error)) from None
        raise


def _hosts(text: str) -> list[str]:
    from hpcplan.hostlist import expand

    try:
        return expand(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _between(topology: Topology, a: list[str], b: list[str]) -> dict[str, Any]:
    from hpcplan.site.flows import bandwidth_between

    answer: dict[str, Any] = {"from": a, "to": b, "bandwidth_bytes_per_s": bandwidth_between(topology, a, b)}
    if len(a) == len(b) == 1:
        answer |= {"latency_s": topology.latency(a[0], b[0]), "path": topology.path(a[0], b[0])}
    return answer


def _bisection(topology: Topology, hosts: list[str]) -> dict[str, Any]:
    from hpcplan.site.bisection import bisection_bytes_per_s

    return {"nodes": hosts, "bandwidth_bytes_per_s": bisection_bytes_per_s(topology, hosts)}


def _jobs(topology: Topology, jobs: list[list[str]]) -> list[dict[str, Any]]:
    import math

    from hpcplan.site.traffic import Collective, effective_bandwidths

    rates = effective_bandwidths(topology, [Collective(tuple(job)) for job in jobs])
    return [
        {"nodes": job, "bandwidth_bytes_per_s": rate if math.isfinite(rate) else None}
        for job, rate in zip(jobs, rates, strict=True)
    ]


def _best(topology: Topology, count: int, busy: list[str]) -> dict[str, Any]:
    from hpcplan.site.distances import distances
    from hpcplan.site.nearest import best_nodes

    chosen = best_nodes(topology, count, busy=busy)
    found = distances(topology, chosen)
    narrowest = float(found.bandwidth_bytes_per_s.min()) if count > 1 else None
    return {"nodes": chosen, "least_bandwidth_bytes_per_s": narrowest, "most_latency_s": float(found.latency_s.max())}


def _without(topology: Topology, name: str, cables: int | None) -> dict[str, Any]:
    import dataclasses

    from hpcplan.site.failures import cost_of_failure

    a, colon, b = name.partition(":")
    return dataclasses.asdict(cost_of_failure(topology, (a, b) if colon else name, links=cables))


def _between_words(answer: dict[str, Any]) -> Iterator[str]:
    from hpcplan.units import format_bandwidth, format_duration

    rate = format_bandwidth(answer["bandwidth_bytes_per_s"])
    yield f"between {_list(answer['from'])} and {_list(answer['to'])}: {rate} one way, when nobody else talks"
    if "path" in answer:
        yield f"  {format_duration(answer['latency_s'])}, by way of {' - '.join(answer['path'])}"


def _bisection_words(answer: dict[str, Any]) -> Iterator[str]:
    from hpcplan.units import format_bandwidth

    yield f"between the halves of {_list(answer['nodes'])}: {format_bandwidth(answer['bandwidth_bytes_per_s'])} one way"


def _jobs_words(answer: list[dict[str, Any]]) -> Iterator[str]:
    from hpcplan.units import format_bandwidth

    for job in answer:
        rate = job["bandwidth_bytes_per_s"]
        what = "needs no link" if rate is None else f"each node sends {format_bandwidth(rate)} while all run"
        yield f"ring over {_list(job['nodes'])}: {what}"


def _best_words(answer: dict[str, Any]) -> Iterator[str]:
    from hpcplan.units import format_bandwidth, format_duration

    yield f"closest together: {_list(answer['nodes'])}"
    if answer["least_bandwidth_bytes_per_s"] is not None:
        rate = format_bandwidth(answer["least_bandwidth_bytes_per_s"])
        yield f"  any two of them: {rate} or more, {format_duration(answer['most_latency_s'])} or less"


def _without_words(answer: dict[str, Any]) -> Iterator[str]:
    from hpcplan.units import format_bandwidth

    yield f"without {answer['failed']}: {len(answer['lost'])} nodes cut off, {len(answer['slowed'])} others get less"
    if answer["lost"]:
        yield f"  cut off: {_list(answer['lost'])}"
    for key, what in (("share", "the worst-placed node, all talking to all"), ("bisection", "between halves")):
        before, after = answer[f"{key}_before_bytes_per_s"], answer[f"{key}_after_bytes_per_s"]
        yield f"  {what}: {format_bandwidth(after)}, before {format_bandwidth(before)}"


def _list(names: list[str]) -> str:
    from hpcplan.hostlist import compress

    return compress(names)


_WORDS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "between": _between_words,
    "bisection": _bisection_words,
    "jobs": _jobs_words,
    "best": _best_words,
    "without": _without_words,
}
