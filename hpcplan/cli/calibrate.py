"""``hpcplan calibrate``: measurements become better constants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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


@command.command("fit")
@click.argument("measured", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Write the constants here.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the rows that are held out together.")
@format_option
def fit_command(measured: tuple[Path, ...], output: Path | None, seed: int, output_format: str) -> None:
    """Fit the constants to tables of measured runs, and say how good they are on rows that were held out.

    Two figures for each group: 'calibrated' (a fifth of the rows held out, so others of the same site are known) and
    'unseen' (the whole site held out). 'three rows' knows three other rows of the site. No figure is of a row that its
    constants were fitted on. The same tables and seed give the same constants.

    \b
    Example:
      hpcplan calibrate fit measured/*.csv -o site_configs/constants
    """
    import shutil

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
        for kind in ("families", "accelerators", "frameworks", "precisions", "features", "sites"):
            shutil.rmtree(output / kind, ignore_errors=True)
        tables = [path.name for path in measured]
        written = write_constants(output, read_prior(folder), result.batch, (result.time, result.memory), tables)
        narrate(f"wrote {len(written)} files to {output}")
    if output_format == "json":
        echo_json(_as_dict(result))
    else:
        _print(result)


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
