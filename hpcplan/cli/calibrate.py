"""``hpcplan calibrate``: measurements become better constants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.calibrate_bench import bench_command
from hpcplan.cli.calibrate_learn import learn_command
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress_bar, table

if TYPE_CHECKING:
    from hpcplan.calibrate.report import Accuracy, Calibration

__all__ = ["command"]


@click.group()
def command() -> None:
    """Fit the cost model's constants to measurements.

    \b
    Example:
      hpcplan calibrate fit runs.csv -o ~/my-constants
      hpcplan validate other-runs.csv --constants ~/my-constants
    """


command.add_command(bench_command)
command.add_command(learn_command)


@command.command("fit")
@click.argument("measured", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Write the constants here.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the rows that are held out together.")
@format_option
def fit_command(measured: tuple[Path, ...], output: Path | None, seed: int, output_format: str) -> None:
    """Fit the constants to tables of measured runs, and say how good they are on rows that were held out.

    Two figures for each group: 'calibrated' (a tenth of the rows held out, so others of the same site are known) and
    'unseen' (the whole site held out). 'three rows' knows three other rows of the site. No figure is of a row that its
    constants were fitted on. The same tables and seed give the same constants.

    \b
    Example:
      hpcplan calibrate fit measured/*.csv -o site_configs/constants
    """
    import shutil

    from hpcplan.calibrate.fit import group_weights
    from hpcplan.calibrate.report import calibrate
    from hpcplan.calibrate.rows import Row, read_rows
    from hpcplan.calibrate.store import write_constants
    from hpcplan.cost.constants import read_prior
    from hpcplan.resources import shipped

    folder = shipped("sites") / "constants"
    sites = {row.site for path in measured for row in read_rows(path).rows if isinstance(row, Row)}
    with progress_bar("fitting", 2 * len(sites)) as done:
        result = calibrate(measured, folder, seed=seed, on_site=done)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for kind in ("families", "accelerators", "frameworks", "precisions", "features", "sites", "corrections"):
            shutil.rmtree(output / kind, ignore_errors=True)
        tables = [path.name for path in measured]
        fits, weights = (result.time, result.memory), group_weights(result.tables)
        written = write_constants(output, read_prior(folder), result.batch, fits, tables, weights)
        narrate(f"wrote {len(written)} files to {output}")
    if output_format == "json":
        echo_json(_as_dict(result))
    else:
        _print(result)


@command.command("collectives")
@click.argument("measured", type=click.Path(path_type=Path))
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="GPU=BANDWIDTH",
    help="What one accelerator's links carry, one way, as in a100=300GB/s.  [repeatable]",
)
@click.option(
    "--site",
    "sites",
    multiple=True,
    metavar="GPU=SITE",
    help="A site whose nodes tell it, and which GPUs share links where no switch joins them.  [repeatable]",
)
@format_option
def collectives_command(measured: Path, links: tuple[str, ...], sites: tuple[str, ...], output_format: str) -> None:
    """Fit link_efficiency and link_half_bytes to all-reduces that nccl-tests measured inside one node.

    The table has the columns gpu, ngpus_in_node, bytes and oop_us. The error is of every second message size, held out
    of the fit. What it prints goes into prior.yaml by hand: a fit to runs starts there.

    \b
    Example:
      hpcplan calibrate collectives nccl.csv --link a100=300GB/s --site v100=dgx-1v
    """
    import dataclasses

    from hpcplan.calibrate.collectives import fit_links, read_link_runs

    insides = {gpu: (rate, ()) for gpu, rate in _rates(links).items()} | _insides(sites)
    runs = read_link_runs(measured)
    fits = [fit_links(gpu, of_gpu, *insides[gpu]) for gpu, of_gpu in runs.items() if gpu in insides]
    for gpu in runs:
        if gpu not in insides:
            narrate(f"{gpu}: neither --link {gpu}=BANDWIDTH nor --site {gpu}=SITE, left out")
    if output_format == "json":
        echo_json([dataclasses.asdict(each) for each in fits])
        return
    rows = [
        (each.gpu, each.runs, f"{each.link_efficiency:.3f}", f"{each.link_half_bytes / 1e6:.2f} MB",
         f"{100 * each.mean_abs_error:.1f} %") for each in fits
    ]  # fmt: skip
    columns = ("", ">runs", ">link_efficiency", ">link_half_bytes", ">error, held out")
    console().print(table("all-reduce inside a node", columns, rows))


def _rates(links: tuple[str, ...]) -> dict[str, float]:
    from hpcplan.errors import InputError
    from hpcplan.units import parse_bandwidth

    rates: dict[str, float] = {}
    for word in links:
        gpu, _, text = word.partition("=")
        try:
            rates[gpu] = parse_bandwidth(text)
        except ValueError as error:
            raise InputError(f"--link {word!r}: write GPU=BANDWIDTH, as in a100=300GB/s ({error})") from None
    return rates


def _insides(sites: tuple[str, ...]) -> dict[str, tuple[float, tuple[tuple[int, ...], ...]]]:
    """Return the rate of one accelerator's links, and the links between each two, of the first nodes that have some."""
    from hpcplan.errors import InputError
    from hpcplan.site import load_site

    found: dict[str, tuple[float, tuple[tuple[int, ...], ...]]] = {}
    for word in sites:
        gpu, _, name = word.partition("=")
        groups = load_site(name or gpu).site.node_groups.values()
        inside = next((group.intra_node for group in groups if group.intra_node), None)
        if inside is None:
            raise InputError(f"--site {word!r}: no nodes of {name} have links between accelerators")
        found[gpu] = (inside.bandwidth_bytes_per_s, inside.mesh)
    return found


def _as_dict(result: Calibration) -> dict[str, Any]:
    import dataclasses

    return {
        "rows": len(result.batch),
        "left_out": result.left_out,
        "tables": [dataclasses.asdict(each) for each in result.by_table],
        "sites": [dataclasses.asdict(each) for each in result.by_site],
    }


def _print(result: Calibration) -> None:
    columns = ("", ">rows", ">calibrated", ">unseen", ">three rows", ">regret cal.", ">regret unseen", ">rank unseen",
               ">memory rows", ">calibrated", ">unseen", ">fits right")  # fmt: skip
    out = console()
    for title, entries in (("by table", result.by_table), ("by site", result.by_site)):
        out.print(table(f"mean error of held-out rows, {title}", columns, [_row(each) for each in entries]))
    narrate(f"{len(result.batch)} rows used, {result.left_out} left out (hpcplan validate says why)")


def _row(accuracy: Accuracy) -> tuple[object, ...]:
    from hpcplan.cli.validate import percent

    a = accuracy
    rank = a.unseen.rank_correlation
    return (
        a.group, a.calibrated.rows, percent(a.calibrated.mean_abs_error), percent(a.unseen.mean_abs_error),
        percent(a.three_rows.mean_abs_error), percent(a.calibrated.pick_regret), percent(a.unseen.pick_regret),
        "" if rank is None else f"{rank:.2f}", a.calibrated.memory_rows or "",
        percent(a.calibrated.memory_mean_abs_error), percent(a.unseen.memory_mean_abs_error),
        percent(a.calibrated.fit_right),
    )  # fmt: skip
