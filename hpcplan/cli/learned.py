"""What ``hpcplan calibrate learn`` has kept of a site, for the commands that use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcplan.report.site_facts import Tracked
    from hpcplan.schedule.forecast.snapshot import QueueSnapshot

__all__ = ["evidence_of", "evidence_words", "learned_failures", "tracked_of", "with_learned_limits"]

_ENOUGH_JOBS = 30  # of a history, to tell by itself how much of their limits jobs use


def evidence_of(site: str | None, cluster: str | None) -> Path | None:
    """Return the folder of a site's evidence: of that name, or of the site whose ``slurm.cluster`` is the cluster.

    ``None`` where there is none, or where sites of several names are that cluster.
    """
    from hpcplan.errors import InputError
    from hpcplan.resources import config_dir
    from hpcplan.site import load_site

    root = config_dir() / "sites" / "evidence"
    if not root.is_dir():
        return None
    folders = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    if site is not None:
        return folders.get(site)
    if cluster is None or cluster in folders:
        return folders.get(cluster or "")
    found = []
    for name, folder in folders.items():
        try:
            if load_site(name).site.slurm.cluster == cluster:
                found.append(folder)
        except InputError:
            continue  # a site that is a file elsewhere: --site names it
    return found[0] if len(found) == 1 else None


def tracked_of(folder: Path | None, *, hide: bool = False) -> tuple[Tracked, ...]:
    """Return the campaigns that were predicted and measured, with the control charts; by number where names are hidden.

    Raises:
        InputError: the track is damaged.
    """
    if folder is None or not (folder / "track.csv").is_file():
        return ()
    from hpcplan.calibrate.learn_track import read_track, watch
    from hpcplan.report.site_facts import Tracked

    entries = read_track(folder / "track.csv")
    seen = watch([entry.error for entry in entries])
    return tuple(
        Tracked(
            time=one.time, campaign=f"campaign {number}" if hide else one.campaign, nodes=one.nodes,
            predicted_s=one.predicted_s, low_s=one.low_s, high_s=one.high_s, actual_s=one.actual_s,
            average=chart.average, limit=chart.limit, drift=chart.drift,
        )
        for number, (one, chart) in enumerate(zip(entries, seen, strict=True), start=1)
    )  # fmt: skip


def with_learned_limits(snapshot: QueueSnapshot, site: str | None = None) -> QueueSnapshot:
    """Return a queue of little history with the shares of their limits that the site's jobs use, where learned.

    Raises:
        InputError: the file of what was learned is damaged.
    """
    if len(snapshot.history) >= _ENOUGH_JOBS:
        return snapshot
    folder = evidence_of(site, None if site else snapshot.source.partition(": ")[2] or None)
    data = None if folder is None else _learned(folder)
    if data is None:
        return snapshot
    use = {one["partition"]: _shares(one) for one in data["limits"]}
    if not use:
        return snapshot
    words = f"accounting of {data['date']}, {data['jobs']:,} jobs, learned for {folder.name if folder else ''}"
    return snapshot.model_copy(update={"limit_use": use, "limit_source": words})


def learned_failures(site: str, group: str) -> str | None:
    """Return in words how often nodes of a group fail, where that was learned and stands in for the site file's."""
    from hpcplan.site.load import ENOUGH_FAILURES
    from hpcplan.units import format_duration

    folder = evidence_of(site, None)
    data = None if folder is None else _learned(folder)
    rate = None if data is None else data["failures"].get(group)
    if data is None or rate is None or rate["failures"] < ENOUGH_FAILURES:
        return None
    return (
        f"a node of {group} fails every {format_duration(rate['mtbf_s'])}: accounting of {data['date']}, "
        f"{rate['failures']} failures"
    )


def evidence_words(site: str) -> tuple[str, ...]:
    """Return in words what prices and times of a site rest on beside the shipped constants; nothing where that is all.

    Raises:
        InputError: the file of what was learned is damaged.
    """
    from hpcplan.calibrate.evidence import known_factors

    known = None if "/" in site or site.startswith(".") else known_factors(site)
    return () if known is None else known.evidence


def _shares(one: dict[str, Any]) -> tuple[float, ...]:
    """Return ten shares of the limit, as likely each, with the learned quantiles; timed-out jobs use all of it."""
    from itertools import pairwise

    known = [(0.0, 0.0), (0.1, one["p10"]), (0.5, one["p50"]), (0.9, one["p90"]), (1.0, 1.0)]
    found = []
    for number in range(10):
        level = (number + 0.5) / 10
        (a, low), (b, high) = next(pair for pair in pairwise(known) if level <= pair[1][0])
        found.append(1.0 if level > 1 - one["timed_out"] else low + (high - low) * (level - a) / (b - a))
    return tuple(max(0.001, share) for share in found)


def _learned(folder: Path) -> dict[str, Any] | None:
    import json

    from hpcplan.documents import read_text
    from hpcplan.errors import InputError, Problem

    path = folder / "learned.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(read_text(path))
        for one in data["limits"]:
            _shares(one)
        return {key: data[key] for key in ("date", "jobs", "limits", "failures")}
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        message = f"is not what 'hpcplan calibrate learn' writes: {error}"
        raise InputError(Problem(message, file=str(path)), hint="take it away, or learn again") from None
