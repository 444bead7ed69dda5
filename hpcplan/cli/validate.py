"""``hpcplan validate``: predictions beside measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, table

__all__ = ["command", "percent", "score_columns", "score_row"]

_SAID = 10  # rows without a price that are named on the screen


@click.command()
@click.argument("measured", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows with predictions."
)
@click.option("--constants", type=click.Path(path_type=Path, file_okay=False), help="A constants folder of your own.")
@click.option("--group-by", default="site", show_default=True, help="The column whose values make the groups.")
@format_option
def command(
    measured: tuple[Path, ...], output: Path | None, constants: Path | None, group_by: str, output_format: str
) -> None:
    """Predict measured runs and say how far off the predictions are.

    MEASURED is CSV with columns such as site, gpus, model, seq, global_batch, tp, pp, dp, iter_time_s; what is missing
    is inferred or defaulted, and the note beside each row says so. Rows that the constants were fitted on are counted
    apart: for figures on rows that were held out, see 'hpcplan calibrate fit'. Where no row at all can be priced the
    exit code is 2.

    \b
    Example:
      hpcplan validate runs.csv -o predicted.csv
    """
    import dataclasses

    from hpcplan.calibrate.validate import predict_table, score, scores, to_csv
    from hpcplan.documents import write_text
    from hpcplan.errors import InputError

    if output is not None and len(measured) > 1:
        raise InputError("-o takes the predictions of one table; give one, or leave -o out")
    predictions, groups, unpriced, text = [], [], [], ""
    for path in measured:
        read, found = predict_table(path, folder=constants)
        predictions += found
        groups += [cells.get(group_by) or path.stem for cells in read.cells]
        unpriced += [
            {"table": str(path), "line": line, "reason": each.note}
            for line, each in zip(read.lines, found, strict=True)
            if each.row is None
        ]
        text = to_csv(read, found)
    if output is not None:
        write_text(output, text)
    per_group = scores(predictions, groups)
    overall = score("all", predictions)
    if output_format == "json":
        summary = {"groups": [dataclasses.asdict(each) for each in per_group], "all": dataclasses.asdict(overall)}
        echo_json({**summary, "unpriced": unpriced})
    else:
        rows = [score_row(each) for each in [*per_group, overall]]
        console().print(table("predicted against measured", score_columns(group_by), rows))
        if overall.fitted_on:
            narrate(f"{overall.fitted_on} of {overall.rows} rows were used to fit the constants: their errors flatter.")
        if not (overall.rows or overall.memory_rows) and len(unpriced) < len(predictions):
            narrate("no row has a measured step time or memory; '-o FILE' writes what is predicted")
        _say_unpriced(unpriced)
    if output is not None:
        narrate(f"wrote {output}")
    if not any(each.row for each in predictions):
        hint = (
            "each row's reason stands above" if predictions else "there is none below the line that names the columns"
        )
        raise InputError(f"no row of {', '.join(map(str, measured))} can be priced", hint=hint)


def _say_unpriced(unpriced: list[dict[str, Any]]) -> None:
    """Say why rows could not be priced, the first few of them."""
    for row in unpriced[:_SAID]:
        narrate(f"{row['table']}:{row['line']}: not priced: {row['reason']}")
    if len(unpriced) > _SAID:
        narrate(f"and {len(unpriced) - _SAID} more rows; '-o FILE' or '--format json' names them all")


def percent(value: float | None) -> str:
    """Return a share as people read it."""
    return "" if value is None else f"{100 * value:.1f} %"


def score_columns(group_by: str) -> tuple[str, ...]:
    """Return the columns of :func:`score_row`."""
    return (group_by, ">rows", ">unpriced", ">mean error", ">median", ">bias", ">in 90 % interval", ">rank corr.",
            ">pick regret", ">memory rows", ">memory error", ">fits right")  # fmt: skip


def score_row(score: Any) -> tuple[object, ...]:
    """Return a score's cells."""
    rank = "" if score.rank_correlation is None else f"{score.rank_correlation:.2f}"
    return (
        score.group, score.rows, score.unpriced or "", percent(score.mean_abs_error), percent(score.median_abs_error),
        percent(score.bias), percent(score.within_interval), rank, percent(score.pick_regret),
        score.memory_rows or "", percent(score.memory_mean_abs_error), percent(score.fit_right),
    )  # fmt: skip
