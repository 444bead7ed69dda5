"""How well step times and memory are predicted, beside Calculon on the rows that its model covers: the page of docs.

Every row of ours is predicted by fits that did not see it: "calibrated" holds out a tenth of all rows at a time,
"unseen" the row's whole site, "three rows" its site but for three others. Calculon
(https://github.com/calculon-ai/calculon, Isaev et al. 2023) stays outside this repository: give the path of a checkout
with ``--calculon`` or the environment variable ``CALCULON``; it needs ``psutil`` and ``pandas``. Its own systems
(``a100_80g``, ``h100_80g_nvl8``) stand for the sites with these chips. It covers GPT-like models in 16 bits, tensor,
pipeline and data parallel ranks, and sharded optimizer states; rows that it refuses are not counted for either side.

    CALCULON=~/calculon python -m tests.benchmarks.accuracy measured/*.csv -o docs/reference/accuracy.md
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hpcplan.calibrate.report import Accuracy, Calibration, calibrate
from hpcplan.calibrate.rows import Row
from hpcplan.calibrate.store import unseen_width
from hpcplan.calibrate.validate import Prediction, Score, predict_table, score, scores
from hpcplan.resources import shipped

__all__ = ["calculon_seconds", "main"]

SYSTEMS = {"A100": "a100_80g", "H100": "h100_80g_nvl8"}
RUNS_ELSEWHERE = Path(__file__).parents[1] / "calibrate" / "published_elsewhere.csv"
RECOMPUTE = ("none", "attn_only", "full")
HEAD = """# How accurate the predictions are

This page is what `python -m tests.benchmarks.accuracy` prints over tables of published, measured runs;
`hpcplan calibrate fit` prints the same figures for any tables. Each row is predicted by a fit that did not see it:

- **calibrated**: a tenth of all rows is held out at a time, so the fit and its corrections know other rows of the same
  site;
- **unseen**: the row's whole site is held out of every fit, as when a site asks for its first plan;
- **three rows**: all of the site is held out but for three other rows (the mean error of twenty draws).

"Error" is the mean of |predicted / measured - 1|. "Pick regret" takes the runs of one model on as many accelerators of
one site: how much slower than the measured best the one is that the predictions would pick (the mean over such sets).
"In interval" is the share of measurements inside the 90 % interval that predictions of an unseen site carry.
"""

AIMED = """What was aimed at before the work began, in per cent, and what was reached. Why some aims are missed stands
in [the cost model](../explanation/cost-model.md#where-it-misses).
"""

ELSEWHERE = """Published runs of other trainers and sites, and of other models on these sites, which no fit has ever
used (`tests/calibrate/published_elsewhere.csv`, with the source of each), priced with the shipped constants. Where a
source does not describe its machine, a generic one of the same accelerators stands for it.
"""

# mean error of the step time, per cent, calibrated and unseen
AIMS = {
    "vTrain, several nodes": (("vtrain_multi_a100",), 5.0, 14.0),
    "MPT / llm-foundry": (("llm_foundry_mpt",), 4.0, 12.0),
    "InternEvo": (("internevo_a100",), 5.0, 12.0),
    "torchtitan": (("torchtitan",), 8.0, 15.0),
    "Sailor (GH200, mixed RTX)": (("sailor_gh200_het",), 8.5, 20.0),
    "Megatron on A100": (("korthikanti2022_tab5", "megatron_lm_a100_2021", "megatron_sc21_table2"), 5.5, 12.0),
    "H100 and Blackwell summaries": (("dgxc_benchmarking", "megatron_bridge_perf", "nemo_h100_fp8_2024"), 12.0, 18.0),
    "vTrain, one node": (("vtrain_single_a100",), 6.0, 20.0),
}

BESIDE = """Step time on the rows that Calculon's model covers, with its own systems; nothing of it is fitted to these
rows but those of korthikanti2022_tab5, on which its authors validated it.
"""


def calculon_seconds(path: Path) -> Callable[[Row, str, int, int, int, int], float | None]:
    """Return a function that gives Calculon's step time (s) of a row, ``None`` where its model does not cover it.

    The function takes the row, the accelerator's family, micro-batch, virtual stages, the index of the recomputation
    and the stage of ZeRO: what a row leaves open is what we inferred.
    """
    sys.path.insert(0, str(path))
    import logging

    import calculon
    from calculon.llm.llm import Llm
    from calculon.system import System

    quiet = logging.getLogger("calculon")
    quiet.addHandler(logging.NullHandler())

    def seconds(row: Row, family: str, size: int, virtual: int, again: int, zero: int) -> float | None:
        model = row.model
        plain = not model.gated and model.experts is None and model.key_value_heads == model.heads
        if family not in SYSTEMS or not plain or zero > 1 or row.cp > 1 or row.precision not in ("fp16", "bf16"):
            return None
        app = Llm.Application({"hidden": model.hidden, "feedforward": model.ffn, "seq_size": row.sequence,
                               "attn_heads": model.heads, "attn_size": model.head_size, "num_blocks": model.layers,
                               "name": "row"})  # fmt: skip
        system = System(calculon.io.read_json_file(str(path / "systems" / f"{SYSTEMS[family]}.json")))
        try:
            execution = Llm.Execution(
                row.gpus, row.tp, row.pp, row.dp, int(row.tp > 8), int(row.tp * row.pp > 8), int(row.gpus > 8),
                row.global_batch, size, "float16", row.flash, "multihead", RECOMPUTE[again], virtual,
                zero == 1 and row.dp > 1, "rs_ag" if row.sequence_parallel else "ar", "none",
                False, row.dp > 1, False, False, False, True,
            )  # fmt: skip
            run = Llm(app, quiet)
            run.compile(system, execution)
            run.run(system)
            return float(run.get_total_time())
        except (AssertionError, Llm.Error, ZeroDivisionError):
            return None

    return seconds


def side_by_side(result: Calibration, path: Path, tables: Sequence[str]) -> str:
    """Return the table of our errors and Calculon's on the rows that both price."""
    seconds, batch = calculon_seconds(path), result.batch
    s = batch.shardings
    theirs = [
        seconds(row, system.family, int(s.micro_batch[i]), int(s.vpp[i]), int(s.recompute[i]), int(s.zero[i]))
        if row.measured_s
        else None
        for i, (row, system) in enumerate(zip(batch.rows, batch.systems, strict=True))
    ]
    columns = ("table", "rows of both", "ours, calibrated", "ours, unseen", "Calculon")
    columns += ("regret: ours, calibrated", "ours, unseen", "Calculon")
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for name in dict.fromkeys(tables):
        index = [i for i, table in enumerate(tables) if table == name and theirs[i]]
        if not index:
            continue

        def of(values: Sequence[float | None], index: Sequence[int] = index, name: str = name) -> Score:
            return score(name, [Prediction("", batch.rows[i], step_s=values[i]) for i in index])

        ours, unseen = (of(list(np.exp(logs))) for logs in (result.time.calibrated, result.time.unseen))
        peer = of(theirs)
        cells = [len(index), *(_percent(each.mean_abs_error) for each in (ours, unseen, peer))]
        cells += [_percent(each.pick_regret) for each in (ours, unseen, peer)]
        lines.append(f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _times(groups: Sequence[Accuracy]) -> str:
    lines = [
        "| | rows | calibrated | unseen | three rows | pick regret, calibrated | unseen | rank correlation, unseen |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for a in groups:
        if not a.calibrated.rows:
            continue
        rank = a.unseen.rank_correlation
        errors = (a.calibrated.mean_abs_error, a.unseen.mean_abs_error, a.three_rows.mean_abs_error)
        regrets = (a.calibrated.pick_regret, a.unseen.pick_regret)
        cells = [a.group, a.calibrated.rows, *map(_percent, errors), *map(_percent, regrets)]
        lines.append("| " + " | ".join(map(str, [*cells, "" if rank is None else f"{rank:.2f}"])) + " |")
    known = [a.three_rows.mean_abs_error for a in groups if a.three_rows.mean_abs_error is not None]
    return "\n".join(lines) + f"\n\nThree rows known, the mean over these groups: {_percent(float(np.mean(known)))}."


def _memory(groups: Sequence[Accuracy]) -> str:
    lines = [
        "| | rows with memory | calibrated | unseen | fits or not: right, calibrated | unseen |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for a in groups:
        c, u = a.calibrated, a.unseen
        if c.memory_rows or c.fit_right is not None:
            errors = map(_percent, (c.memory_mean_abs_error, u.memory_mean_abs_error, c.fit_right, u.fit_right))
            lines.append("| " + " | ".join(map(str, [a.group, c.memory_rows or "", *errors])) + " |")
    return "\n".join(lines)


def _inside(result: Calibration) -> str:
    """Return the share of measurements inside the interval that the fit would write for unseen sites."""
    measured = np.log([row.measured_s or np.nan for row in result.batch.rows])
    errors = np.abs(result.time.unseen - measured)
    sites = np.array([row.site for row in result.batch.rows])
    shares: list[float] = []
    for site in sorted(set(sites[~np.isnan(errors)])):  # the width comes from the other sites
        here, others = errors[(sites == site) & ~np.isnan(errors)], sites != site
        width = unseen_width(result.time.unseen[others], measured[others], sites[others].tolist())
        shares.append(float(np.mean(here <= np.log1p(width))))
    share = f"{100 * float(np.mean(shares)):.0f} %"
    return f"In interval: {share}, the mean over {len(shares)} sites, each by a width that the others set."


def _aims(groups: Sequence[Accuracy]) -> str:
    """Return the table of what was aimed at and what was reached, over the tables that are there."""
    lines = ["| | calibrated: aim | reached | unseen: aim | reached |", "|---|--:|--:|--:|--:|"]
    by_name = {a.group: a for a in groups}
    for title, (tables, *aims) in AIMS.items():
        found = [by_name[name] for name in tables if name in by_name and by_name[name].calibrated.rows]
        if not found:
            continue
        rows = sum(a.calibrated.rows for a in found)
        reached = [
            100 * sum((s.mean_abs_error or 0.0) * s.rows for s in scores) / rows
            for scores in ([a.calibrated for a in found], [a.unseen for a in found])
        ]
        cells = [
            f"{aim:g} | {got:.1f}" + ("" if got <= aim else ", missed") for aim, got in zip(aims, reached, strict=True)
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def elsewhere() -> str:
    """Return the table of errors on published runs that no fit has used."""
    read, found = predict_table(RUNS_ELSEWHERE)
    lines = ["| source | rows | mean error | bias | in 90 % interval | memory |", "|---|--:|--:|--:|--:|--:|"]
    for each in [*scores(found, [cells["source"] for cells in read.cells]), score("all", found)]:
        figures = (each.mean_abs_error, each.bias, each.within_interval, each.memory_mean_abs_error)
        lines.append("| " + " | ".join([each.group, str(each.rows), *map(_percent, figures)]) + " |")
    return "\n".join(lines)


def page(result: Calibration, tables: Sequence[str], calculon: Path | None) -> str:
    """Return the page in Markdown."""
    parts = [HEAD, "## Step time, by table\n", _times(result.by_table), "\n## Step time, by site\n",
             _times(result.by_site), "", _inside(result), "\n## Memory\n", _memory(result.by_table),
             "\n## Against what was aimed at\n", AIMED, _aims(result.by_table)]  # fmt: skip
    parts += ["\n## Runs that no fit has used\n", ELSEWHERE, elsewhere()]
    if calculon is not None:
        parts += ["\n## Beside Calculon\n", BESIDE, side_by_side(result, calculon, tables)]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Fit, predict what was held out, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("--calculon", type=Path, default=os.environ.get("CALCULON"))
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    result = calibrate(options.measured, shipped("sites") / "constants")
    text = page(result, result.tables, Path(options.calculon) if options.calculon else None)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
