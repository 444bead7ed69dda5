"""Writing fitted constants as the files that the cost model reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcplan.calibrate.batch import Batch
from hpcplan.calibrate.rows import Row
from hpcplan.calibrate.targets import Array
from hpcplan.cost.coefficients import NAMES
from hpcplan.cost.constants import BaseConstants
from hpcplan.cost.correction import as_json
from hpcplan.documents import write_text
from hpcplan.validation import digest

if TYPE_CHECKING:
    from hpcplan.calibrate.holdout import Held

__all__ = ["fingerprint", "fitted_rows", "half_width", "site_width", "unseen_width", "write_constants"]

_COVERAGE = 0.90
_LEAST = 0.005  # a factor closer to 1 than this is noise and is not written
_FEW = 10  # rows that a site needs for an interval of its own
_ROWS = "fitted_rows.json"


def fingerprint(row: Row) -> str:
    """Return what tells a measured row from others, whatever table it stands in: a hash of its run and its time."""
    shape = row.model.model_dump(mode="json")
    run = (row.site, row.gpus, row.tp, row.pp, row.vpp, row.cp, row.ep, row.micro_batch, row.zero, row.recompute)
    return digest([shape, list(run), row.sequence, row.global_batch, row.precision, row.measured_s])[:12]


@cache
def fitted_rows(folder: Path) -> frozenset[str]:
    """Return the fingerprints of the rows that a constants folder was fitted on; none if it was not fitted."""
    path = folder / _ROWS
    return frozenset(json.loads(path.read_text())) if path.is_file() else frozenset()


def site_width(predicted: Array, measured: Array, nearest: Array, weights: Array | None = None) -> float | None:
    """Return the half-width near measured runs of a site: of rows that have a run near them, where these are enough.

    ``None`` for too few rows. See :meth:`hpcplan.cost.constants.Constants.half_width` for what becomes of it further
    off.
    """
    known = ~np.isnan(predicted - measured)
    near = known & (nearest > 0.5)
    rows = near if near.sum() >= _FEW else known
    if rows.sum() < _FEW:
        return None
    return half_width(predicted[rows], measured[rows], None if weights is None else weights[rows])


def half_width(predicted: Array, measured: Array, weights: Array | None = None) -> float:
    """Return the share by which 90 % of the measurements, by weight, lie at most above or below their prediction."""
    errors = np.abs(predicted - measured)
    known = ~np.isnan(errors)
    order = np.argsort(errors[known])
    errors, each = errors[known][order], (np.ones(len(errors)) if weights is None else weights)[known][order]
    reached = (np.cumsum(each) - 0.5 * each) / each.sum()
    return float(np.expm1(np.interp(_COVERAGE, reached, errors)))


def unseen_width(predicted: Array, measured: Array, sites: Sequence[str]) -> float:
    """Return the half-width at a site that no fit has seen: each site counts alike, however many rows it has."""
    known = ~np.isnan(measured)
    counts = Counter(site for site, each in zip(sites, known, strict=True) if each)
    return half_width(predicted, measured, np.array([1.0 / max(1, counts[site]) for site in sites]))


def write_constants(
    folder: Path,
    old: BaseConstants,
    batch: Batch,
    fits: Sequence[Held],
    tables: Sequence[str],
    weights: Array | None = None,
) -> list[Path]:
    """Write every constants file of the fits (of step time, and of memory) and return their paths.

    ``weights`` are those that rows have in a site's interval: its large table must not make its small ones too sure.

    Raises:
        HpcplanError: the folder cannot be written.
    """
    measured = np.log([row.measured_s or np.nan for row in batch.rows])
    source = f"fitted on {len(batch)} rows by `hpcplan calibrate fit`"
    values: dict[tuple[str, str], dict[str, float]] = {}
    for held in fits:
        for (kind, label, name), value in zip(held.design.names, held.values, strict=True):
            values.setdefault((kind, label), {})[name] = float(np.exp(value))
    for belief in old.beliefs:  # what a fit adds is on top of them; labels that no row bears keep them as they are
        of_label = values.setdefault((belief.kind, belief.label), {})
        of_label[belief.constant] = of_label.get(belief.constant, 1.0) * belief.factor
    time = fits[0]
    width = unseen_width(time.unseen, measured, [row.site for row in batch.rows])
    written = [_write_base(folder, old, values.pop(("base", "base")), source, tables, width)]
    for (kind, label), factors in sorted(values.items()):
        kept = {name: factor for name, factor in factors.items() if abs(factor - 1) > _LEAST}
        interval: float | None = None
        if kind == "sites":
            here = np.array([row.site == label for row in batch.rows])
            each = None if weights is None else weights[here]
            interval = site_width(time.calibrated[here], measured[here], time.nearest[here], each)
        if kept or interval:
            written.append(_write_factors(folder / kind, label, kept, source, interval))
    for site, correction in sorted(time.corrections.items()):
        (folder / "corrections").mkdir(parents=True, exist_ok=True)
        path = folder / "corrections" / f"{site}.json"
        write_text(path, as_json(site, source, correction))
        written.append(path)
    path = folder / _ROWS
    write_text(path, json.dumps(sorted({fingerprint(row) for row in batch.rows}), indent=0) + "\n")
    return [*written, path]


def _write_base(
    folder: Path, old: BaseConstants, factors: dict[str, float], source: str, tables: Sequence[str], interval: float
) -> Path:
    lines = [f"# {source}: the values that all rows share. The tables:", *(f"#   {table}" for table in tables)]
    lines += ["name: base", "constants:"]
    for name in NAMES:
        constant = old.constants[name]
        value, why = constant.value, constant.source
        if name in factors:
            value, why = value * factors[name], source
        lines.append(f"  {name}: {{value: {_number(value)}, source: {_quoted(why)}}}")
    why = f"90 % of the held-out rows of sites that the fit had not seen lie within, each site counting alike; {source}"
    lines.append(f"interval: {{value: {interval:.3f}, source: {_quoted(why)}}}")
    path = folder / "base.yaml"
    write_text(path, "\n".join(lines) + "\n")
    return path


def _write_factors(folder: Path, label: str, factors: dict[str, float], source: str, interval: float | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {source}.", f"name: {_quoted(label)}", "factors:" + (" {}" if not factors else "")]
    lines += [f"  {name}: {{factor: {factor:.4f}, source: fitted}}" for name, factor in factors.items()]
    if interval is not None:
        why = f"90 % of this site's rows near others lie within when a tenth of all is held out; {source}"
        lines.append(f"interval: {{value: {interval:.3f}, source: {_quoted(why)}}}")
    path = folder / f"{label}.yaml"
    write_text(path, "\n".join(lines) + "\n")
    return path


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _quoted(text: Any) -> str:
    return json.dumps(str(text), ensure_ascii=False)
