"""``hpcplan data``: how training data is divided over data-parallel ranks and over the chain of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.partition.data_shards import Manifest
    from hpcplan.plan import Plan

__all__ = ["command"]

_MOST_SHOWN = 20


@click.group()
def command() -> None:
    """Divide training data over ranks and jobs, and say who reads what when.

    \b
    Examples:
      hpcplan data shard /data/tokens --bytes-per-token 4 --plan plan.json -o shards.jsonl
      hpcplan data show shards.jsonl
      hpcplan data where shards.jsonl --step 1200 --dp 64 --rank 3
      hpcplan data check shards.jsonl
    """


@command.command("shard")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    metavar="PLAN",
    help="Take batch, sequence length, dp and jobs from it.",
)
@click.option("--global-batch", type=click.IntRange(1), metavar="N", help="Sequences a step, without a plan.")
@click.option("--sequence-length", type=click.IntRange(1), metavar="N", help="Tokens a sequence, without a plan.")
@click.option("--dp", type=click.IntRange(1), metavar="N", help="Data-parallel ranks; the plan's if absent.")
@click.option(
    "--bytes-per-token",
    type=float,
    metavar="B",
    help="Turns sizes of files into tokens: 2 or 4 for most tokenised files.",
)
@click.option("--pattern", default="*", show_default=True, help="Of file names in folders, as in tokens*.bin.")
@click.option(
    "--lanes", type=click.IntRange(1), metavar="N", help="Streams to divide the files over; chosen if absent."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the files in every pass.")
@click.option("--whole", is_flag=True, help="Never cut a file.")
@click.option("--checksum", is_flag=True, help="Read every file for its SHA-256.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Write the manifest here."
)
@click.option(
    "--plan-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the plan here, with the manifest in it.",
)
@format_option
def shard_command(
    inputs: tuple[Path, ...], plan_file: Path | None, global_batch: int | None, sequence_length: int | None,
    dp: int | None, bytes_per_token: float | None, pattern: str, lanes: int | None, seed: int, whole: bool,
    checksum: bool, output: Path, plan_output: Path | None, output_format: str,
) -> None:  # fmt: skip
    """Divide files over lanes, and write who reads what as a manifest.

    INPUTS are folders, tokenised files, or tables (.csv, .tsv) with columns path and tokens or bytes. The lanes are as
    long as each other as nearly as can be; each data-parallel rank reads several whole ones.

    \b
    Examples:
      hpcplan data shard /data/tokens --pattern '*.bin' --bytes-per-token 4 --plan plan.json -o shards.jsonl
      hpcplan data shard files.csv --global-batch 1024 --sequence-length 8192 --dp 64 -o shards.jsonl
    """
    from hpcplan.errors import InputError
    from hpcplan.partition.data_shards import choose_lanes, make_shards, read_inputs, read_manifest, write_manifest
    from hpcplan.plan import read_plan

    plan = read_plan(plan_file) if plan_file is not None else None
    if plan_output is not None and plan is None:
        raise InputError("--plan-output: give the plan with --plan")
    batch = _given("--global-batch", global_batch, plan.training.global_batch if plan else None)
    length = _given("--sequence-length", sequence_length, plan.training.sequence_length if plan else None)
    ranks = dp or (plan.plan.dp if plan else 1)
    with progress("reading"):
        files = read_inputs(inputs, bytes_per_token=bytes_per_token, pattern=pattern, checksum=checksum)
    count = lanes or choose_lanes(len(files), batch, ranks)
    if count % ranks:
        raise InputError(f"--lanes: {count} lanes cannot be read by dp {ranks}; give a multiple of it")
    with progress("dividing"):
        shards = make_shards(files, sequence_length=length, global_batch=batch, lanes=count, seed=seed, cut=not whole)
        write_manifest(output, shards, plan.segments if plan else ())
        manifest = read_manifest(output)
    if plan is not None and plan_output is not None:
        _write_plan(plan, manifest, output, plan_output)
    _print(manifest, output_format)
    narrate(
        f"wrote {output}" + (f" and {plan_output}; next: hpcplan render {plan_output} -o DIR" if plan_output else "")
    )


def _given(option: str, value: int | None, of_plan: int | None) -> int:
    from hpcplan.errors import InputError

    if value is not None and of_plan is not None and value != of_plan:
        raise InputError(f"{option}: is {value}, and {of_plan} in the plan; leave one out")
    chosen = value if value is not None else of_plan
    if chosen is None:
        raise InputError(f"{option} is missing: give it, or a plan that has it with --plan")
    return chosen


def _write_plan(plan: Plan, manifest: Manifest, path: Path, plan_output: Path) -> None:
    from hpcplan.documents import write_text

    field = manifest.as_plan_field(path.resolve())
    write_text(plan_output, plan.model_copy(update={"data_shards": field}).text())


@command.command("show")
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@format_option
def show_command(manifest_file: Path, output_format: str) -> None:
    """Show how a manifest divides the data, and which data-parallel sizes can read it.

    \b
    Example:  hpcplan data show shards.jsonl
    """
    from hpcplan.partition.data_shards import read_manifest

    _print(read_manifest(manifest_file), output_format)


@command.command("where")
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option("--step", type=click.IntRange(1), metavar="N", help="What this step reads.")
@click.option("--segment", type=click.IntRange(1), metavar="N", help="What this job of the chain reads, file by file.")
@click.option("--dp", type=click.IntRange(1), required=True, metavar="N", help="Data-parallel ranks.")
@click.option("--rank", type=click.IntRange(0), required=True, metavar="N", help="The data-parallel rank, from 0.")
@format_option
def where_command(
    manifest_file: Path, step: int | None, segment: int | None, dp: int, rank: int, output_format: str
) -> None:
    """Say which tokens of which files a data-parallel rank reads in a step, or in a job of the chain.

    \b
    Examples:
      hpcplan data where shards.jsonl --step 1200 --dp 64 --rank 3
      hpcplan data where shards.jsonl --segment 2 --dp 64 --rank 3 --format json
    """
    from hpcplan.errors import InputError
    from hpcplan.partition.data_shards import read_manifest

    if (step is None) == (segment is None):
        raise InputError("give --step or --segment, one of them")
    manifest = read_manifest(manifest_file)
    first, last = (step, step) if step is not None else _steps_of(manifest, manifest_file, segment)
    ranges = list(manifest.shards.of_rank(rank, dp, first, last))
    rows = [(r.lane, r.epoch + 1, r.path, r.start, r.stop) for r in ranges]
    if output_format == "json":
        keys = ("lane", "epoch", "path", "start", "stop")
        echo_json(
            {"first_step": first, "last_step": last, "ranges": [dict(zip(keys, row, strict=True)) for row in rows]}
        )
        return
    steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    shown = [(lane, epoch, path, f"{start:,}", f"{stop:,}") for lane, epoch, path, start, stop in rows]
    console().print(table(f"Rank {rank} of {dp}, {steps}", (">lane", ">pass", "file", ">from token", ">to"), shown))


def _steps_of(manifest: Manifest, path: Path, segment: int | None) -> tuple[int, int]:
    from hpcplan.errors import InputError

    for job in manifest.jobs:
        if job.segment == segment:
            return job.first_step, job.last_step
    has = f"jobs 1 to {len(manifest.jobs)}" if manifest.jobs else "no jobs; it was written without a plan"
    raise InputError(f"{path}: has no job {segment}; it has {has}")


@command.command("check")
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option("--content", is_flag=True, help="Read every file, too, and compare its SHA-256.")
@format_option
def check_command(manifest_file: Path, content: bool, output_format: str) -> None:
    """Check that the files are as they were when the manifest was written.

    Compares sizes; with --content also checksums, where the manifest has them. Exit code 1 if a file differs.

    \b
    Example:  hpcplan data check shards.jsonl
    """
    from hpcplan.partition.data_shards import changed_files, read_manifest

    manifest = read_manifest(manifest_file)
    with progress("checking"):
        problems = changed_files(manifest.shards.files, content=content)
    checked = len(manifest.shards.files)
    if output_format == "json":
        echo_json({"files": checked, "changed": [{"path": path, "why": why} for path, why in problems]})
    else:
        for path, why in problems[:_MOST_SHOWN]:
            narrate(f"{path}: {why}")
        if len(problems) > _MOST_SHOWN:
            narrate(f"and {len(problems) - _MOST_SHOWN:,} more; --format json has all")
        console().print(f"{checked:,} files, {len(problems):,} changed", markup=False)
    if problems:
        raise click.exceptions.Exit(1)


def _print(manifest: Manifest, output_format: str) -> None:
    if output_format == "json":
        echo_json(_as_dict(manifest))
    else:
        _show(manifest)


def _as_dict(manifest: Manifest) -> dict[str, Any]:
    from hpcplan.partition.data_shards import usable_sizes

    shards, division = manifest.shards, manifest.shards.division
    return {
        **manifest.header.model_dump(mode="json", exclude={"kind", "schema_version"}),
        "sha256": manifest.sha256,
        "imbalance": division.imbalance,
        "gap": division.gap,
        "pieces": sum(len(lane) for lane in shards.lanes),
        "passes": _passes(manifest),
        "dp": usable_sizes(len(shards.lanes), shards.global_batch),
        "jobs": [job.model_dump() for job in manifest.jobs],
    }


def _passes(manifest: Manifest) -> float | None:
    """Return how often the chain of jobs reads all data; ``None`` where the manifest knows no jobs."""
    if not manifest.jobs:
        return None
    shards = manifest.shards
    tokens: int = manifest.jobs[-1].last_step * shards.tokens_a_step * len(shards.lanes)
    return tokens / shards.tokens


def _show(manifest: Manifest) -> None:
    from hpcplan.partition.data_shards import usable_sizes
    from hpcplan.units import format_count

    shards, division = manifest.shards, manifest.shards.division
    pieces = sum(len(lane) for lane in shards.lanes)
    cut = f" in {pieces:,} pieces" if pieces > len(shards.files) else ", each whole"
    sizes = usable_sizes(len(shards.lanes), shards.global_batch)
    passes = _passes(manifest)
    proof = "no division is better" if division.gap == 0 else f"at most {division.gap:.2%} above the least possible"
    rows: list[tuple[str, str]] = [
        ("files", f"{len(shards.files):,}{cut}, {format_count(shards.tokens)} tokens"),
        ("lanes", f"{len(shards.lanes):,}; the longest is {division.imbalance:.3%} above the mean, {proof}"),
        ("a step", f"{shards.tokens_a_step:,} tokens of each lane, {shards.global_batch:,} sequences in all"),
        ("data-parallel sizes", ", ".join(map(str, sizes))),
    ]
    if passes is not None:
        rows.append(("the chain", f"{len(manifest.jobs):,} jobs, {passes:.2f} passes over the data"))
    console().print(table(None, ("data", ""), rows))
