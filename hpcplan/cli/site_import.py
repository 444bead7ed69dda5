"""``hpcplan site import``: a site file from what the site already has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import echo_json, format_option, narrate

if TYPE_CHECKING:
    from hpcplan.errors import Problem
    from hpcplan.site.importers import Findings
    from hpcplan.site.model import Site

__all__ = ["command"]

_FILE = click.Path(path_type=Path)
_SHOWN = 20


@click.command("import")
@click.option("--slurm-conf", type=_FILE, metavar="FILE", help="slurm.conf, with the files that it includes.")
@click.option("--topology", type=_FILE, metavar="FILE", help="topology.conf or topology.yaml.")
@click.option("--topology-name", metavar="NAME", help="Which topology of topology.yaml; its default one if not given.")
@click.option("--gres", type=_FILE, metavar="FILE", help="gres.conf.")
@click.option("--ibnetdiscover", type=_FILE, metavar="FILE", help="The output of ibnetdiscover.")
@click.option("--nvidia-smi-topo", type=_FILE, metavar="FILE", help="The output of nvidia-smi topo -m on one node.")
@click.option("--nccl-xml", type=_FILE, metavar="FILE", help="NCCL's topology file of one node.")
@click.option("--cluster-model", type=_FILE, metavar="FILE", help="A Topograph cluster model.")
@click.option(
    "--scontrol",
    "scontrol",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="What scontrol show config, node, partition or topology printed, or sinfo; text or JSON. Several times.",
)
@click.option("--live", is_flag=True, help="Ask the Slurm that runs here: scontrol or sinfo, else pyslurm.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "command", "pyslurm"]),
    default="auto",
    show_default=True,
    help="How --live asks.",
)
@click.option("--accelerator", metavar="NAME[:COUNT]", help="Accelerators of which no file tells the kind (or number).")
@click.option("--name", metavar="NAME", help="Of the site; the cluster's name if not given.")
@click.option("--strict", is_flag=True, help="Warnings are errors: nothing is written, exit code 2.")
@click.option("--force", is_flag=True, help="Overwrite the output file, edits and all.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Site file; stdout if not given.")
@format_option
def command(
    accelerator: str | None, name: str | None, topology_name: str | None, strict: bool, force: bool,
    output: Path | None, output_format: str, scontrol: tuple[Path, ...], live: bool, backend: str,
    **files: Path | None,
) -> None:  # fmt: skip
    """Make a site file from slurm.conf, topology.conf and the like, or from a running Slurm.

    Each file helps alone, and all together: what one says is checked against the others, and what none says is
    assumed. Comments in the site file say which figure came from where. Importing again into the same file shows what
    changed and keeps what you edited.

    \b
    Example:
      hpcplan site import --slurm-conf /etc/slurm/slurm.conf --topology /etc/slurm/topology.conf -o mysite.yaml
      hpcplan site import --live --ibnetdiscover ib.txt -o mysite.yaml
      hpcplan site import --ibnetdiscover ib.txt --nvidia-smi-topo topo.txt --accelerator H100-SXM5-80GB:8
    """
    from hpcplan.errors import InputError
    from hpcplan.site.importers.findings import Note
    from hpcplan.site.importers.read import read_sources
    from hpcplan.site.merge import merge
    from hpcplan.site.merge_write import read_back, write_draft

    given: dict[str, Path | tuple[Path, ...]] = {"scontrol": scontrol} if scontrol else {}
    paths = {option.replace("_", "-"): path for option, path in files.items() if path is not None} | given
    if not paths and not live:
        raise click.UsageError("name at least one file to import from, such as --slurm-conf FILE, or --live")
    if live and scontrol:
        raise click.UsageError("--live asks what --scontrol has the answers of; give one of them")
    chip, count = _accelerator(accelerator)
    found = read_sources(paths, topology_name=topology_name)
    if live:
        found["scontrol"] = _ask(backend)
    draft = merge(found, name=name, accelerator=chip, gpus=count)
    warnings = [problem for problem in draft.problems if not isinstance(problem, Note)]
    if strict and warnings:
        raise InputError(warnings, hint="these are warnings without --strict")
    text = write_draft(draft)
    site = read_back(text)
    if output is not None:
        _write(output, text, force=force)
    _tell(found, site, draft.problems, output, text, output_format)


def _ask(backend: str) -> Findings:
    from hpcplan.site.importers.scontrol import parse_scontrol
    from hpcplan.slurm.describe import describe

    return parse_scontrol(describe(backend))


def _accelerator(value: str | None) -> tuple[str | None, int | None]:
    if value is None:
        return None, None
    chip, colon, count = value.partition(":")
    if colon and not (count.isascii() and count.isdigit() and int(count[:9]) > 0):
        raise click.BadParameter(f"{count!r} is not a number of accelerators", param_hint="--accelerator")
    return chip, int(count) if colon else None


def _write(output: Path, text: str, *, force: bool) -> None:
    from hpcplan.site.merge_again import write_site

    again = write_site(output, text, force=force)
    for line in again.difference:
        narrate(line)
    for line in again.kept:
        narrate(f"warning: {output}: kept your {line!r}, though what is imported changed as well")


def _tell(
    found: dict[str, Findings], site: Site, problems: list[Problem], output: Path | None, text: str, output_format: str
) -> None:
    from hpcplan.site.importers.findings import Note

    if output_format == "json":
        echo_json(_summary(found, site, problems, output))
        return
    notes = [problem for problem in problems if isinstance(problem, Note)]
    warnings = [problem for problem in problems if not isinstance(problem, Note)]
    for what, several in (("warning", warnings), ("note", notes)):
        for problem in several[:_SHOWN]:
            narrate(f"{what}: {problem}")
        if len(several) > _SHOWN:
            narrate(f"{what}: {len(several) - _SHOWN} more; --format json lists all")
    for findings in found.values():
        counts = ", ".join(f"{what.replace('_', ' ')} {count}" for what, count in findings.counts().items())
        narrate(f"{findings.label}: {counts or 'nothing'}")
    if output is None:
        click.echo(text, nl=False)
    else:
        narrate(f"wrote {output}; look at the figures marked 'assumed'")


def _summary(found: dict[str, Findings], site: Site, problems: list[Problem], output: Path | None) -> dict[str, Any]:
    import dataclasses

    from hpcplan.site.importers.findings import Note

    return {
        "site": site.name,
        "file": None if output is None else str(output),
        "found": {option: findings.counts() for option, findings in found.items()},
        "nodes": sum(len(group.hostnames()) for group in site.node_groups.values()),
        "node_groups": len(site.node_groups),
        "partitions": len(site.partitions),
        "switches": len(site.fabric.switches),
        "warnings": [dataclasses.asdict(problem) for problem in problems if not isinstance(problem, Note)],
        "notes": [dataclasses.asdict(problem) for problem in problems if isinstance(problem, Note)],
    }
