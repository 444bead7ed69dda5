"""What is known of a site beyond its data sheets, kept beside the user's site files, and used by every later plan.

In ``sites`` of the user's settings (``~/.config/hpcplan``): ``constants/sites/NAME.yaml`` holds the site's factors on
the cost model's constants, with the evidence they rest on; a plan's provenance repeats it. ``constants/corrections``
holds what measured runs add near themselves, made for these factors. ``evidence/NAME`` holds the evidence itself:
``bench-DATE.json`` of each benchmark, ``learned.json`` of accounting, ``track.csv`` of predictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.cost.constants import Factors, learned_factors, learned_folder, read_factors
from hpcplan.cost.correction import as_json, read_correction
from hpcplan.documents import write_text
from hpcplan.errors import InputError
from hpcplan.resources import shipped

if TYPE_CHECKING:
    from hpcplan.calibrate.learn import Learned

__all__ = [
    "bench_factors",
    "day_of",
    "evidence_folder",
    "factors_path",
    "keep_accounting",
    "keep_factors",
    "keep_learned",
    "known_factors",
    "merge_bench",
]


def evidence_folder(site: str, folder: Path | None = None, *, make: bool = True) -> Path:
    """Return where the evidence of a site is kept; made if it is not there, unless it is only looked into.

    Raises:
        InputError: the name is none that a file can have.
    """
    found = (folder or learned_folder()).parent / "evidence" / _plain(site)
    if make:
        found.mkdir(parents=True, exist_ok=True)
    return found


def factors_path(site: str, folder: Path | None = None) -> Path:
    """Return the file of a site's own factors."""
    return (folder or learned_folder()) / "sites" / f"{_plain(site)}.yaml"


def corrections_path(site: str) -> Path:
    """Return the file of what runs of a site add near themselves."""
    return learned_folder() / "corrections" / f"{_plain(site)}.json"


def _plain(site: str) -> str:
    if not site or "/" in site or site.startswith("."):
        raise InputError(f"{site!r} is no name of a site that files can be called by")
    return site


def day_of(time_s: float) -> str:
    """Return the date of unix seconds, UTC: ``2026-11-27``."""
    return datetime.fromtimestamp(time_s, tz=UTC).date().isoformat()


def known_factors(site: str, folder: Path | None = None) -> Factors | None:
    """Return the factors that were kept of a site, ``None`` if there are none."""
    path = factors_path(site, folder)
    return learned_factors(path) if path.is_file() else None


def keep_factors(
    site: str,
    factors: Mapping[str, tuple[float, str]],
    evidence: Sequence[str],
    *,
    interval: tuple[float, str] | None = None,
    folder: Path | None = None,
) -> Path:
    """Write a site's factors, each with its source, and the evidence that they rest on; return the file.

    Raises:
        HpcplanError: the file cannot be written.
    """
    path = factors_path(site, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"name: {json.dumps(site)}", "evidence:"]
    lines += [f"  - {json.dumps(each, ensure_ascii=False)}" for each in evidence]
    lines += ["factors:" if factors else "factors: {}"]
    for name, (factor, source) in sorted(factors.items()):
        lines.append(f"  {name}: {{factor: {factor:.5g}, source: {json.dumps(source, ensure_ascii=False)}}}")
    if interval is not None:
        value, source = interval
        lines.append(f"interval: {{value: {value:.4g}, source: {json.dumps(source, ensure_ascii=False)}}}")
    write_text(path, "\n".join(lines) + "\n")
    learned_factors.cache_clear()
    return path


def merge_bench(site: str, factors: Mapping[str, tuple[float, str]], evidence: str) -> Path:
    """Put the factors of a benchmark in the place of an earlier one's, and keep what was learned besides.

    Corrections go: they were made for the factors of before, and the next ``learn`` makes them anew. A site that
    nothing was learned of yet keeps the factors that are shipped for it.

    Raises:
        HpcplanError: the file cannot be written.
    """
    old = known_factors(site) or read_factors(shipped("sites") / "constants", "sites", site)
    kept = {} if old is None else {name: (entry.factor, entry.source) for name, entry in old.factors.items()}
    words = [] if old is None else [each for each in old.evidence if not each.startswith("bench ")]
    corrections_path(site).unlink(missing_ok=True)
    interval = None if old is None or old.interval is None else (old.interval.value, old.interval.source)
    return keep_factors(site, {**kept, **factors}, [*words, evidence], interval=interval)


def bench_factors(site: str) -> dict[str, float]:
    """Return the factors of the last benchmark of a site, over those that are shipped for it; none without one."""
    found = sorted(evidence_folder(site).glob("bench-*.json"), key=lambda path: path.name)
    for path in reversed(found):
        factors = json.loads(path.read_text()).get("factors") or {}
        if factors:
            shipped_here = read_factors(shipped("sites") / "constants", "sites", site)
            own = {} if shipped_here is None else {k: v.factor for k, v in shipped_here.factors.items()}
            return {name: float(entry["factor"]) / own.get(name, 1.0) for name, entry in factors.items()}
    return {}


def keep_learned(site: str, learned: Learned, day: str) -> Path:
    """Write what runs of a site taught, on top of what is shipped for it and of its last benchmark.

    Raises:
        HpcplanError: the file cannot be written.
    """
    old, shipped_here = known_factors(site), read_factors(shipped("sites") / "constants", "sites", site)
    factors = {} if shipped_here is None else {k: (v.factor, v.source) for k, v in shipped_here.factors.items()}
    for name, factor in bench_factors(site).items():
        factors[name] = (factors.get(name, (1.0, ""))[0] * factor, "the last benchmark")
    source = f"learned {day} from {learned.runs} runs"
    for name, factor in learned.factors.items():
        before = factors.get(name)
        words = source if before is None else f"{source}, on top of: {before[1]}"
        factors[name] = ((1.0 if before is None else before[0]) * factor, words)
    others = [] if old is None else [each for each in old.evidence if not each.startswith("learned ")]
    interval = None
    if learned.interval is not None:
        interval = (learned.interval, f"90 % of the runs lie within when they are held out; {source}")
    words = f"{source} (error {learned.before:.1%} before, {learned.after:.1%} held out)"
    path = corrections_path(site)
    path.unlink(missing_ok=True)  # so that none ever stands beside factors that it was not made for
    written = keep_factors(site, factors, [*others, words], interval=interval)
    if learned.correction is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, as_json(site, source, learned.correction))
    read_correction.cache_clear()
    return written


def keep_accounting(site: str, words: str) -> Path:
    """Add to the evidence what accounting taught, in the place of what it taught before; factors stay.

    Raises:
        HpcplanError: the file cannot be written.
    """
    old = known_factors(site) or read_factors(shipped("sites") / "constants", "sites", site)
    factors = {} if old is None else {name: (entry.factor, entry.source) for name, entry in old.factors.items()}
    others = [] if old is None else [each for each in old.evidence if not each.startswith("accounting ")]
    interval = None if old is None or old.interval is None else (old.interval.value, old.interval.source)
    return keep_factors(site, factors, [*others, words], interval=interval)
