"""Finding, starting and stopping mock clusters by name.

Each has a directory ``mock/NAME`` in the user's data folder (:func:`hpcplan.resources.data_dir`); ``$HPCPLAN_MOCK``
names another directory outright.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.errors import ConflictError, InputError, SlurmUnreachableError
from hpcplan.resources import data_dir
from hpcplan.simulate.policies import policy_named
from hpcplan.simulate.slurm_cluster import cluster_of_site
from hpcplan.simulate.store import ClusterStore, Settings

if TYPE_CHECKING:
    from hpcplan.site.load import LoadedSite

__all__ = ["DEFAULT_HISTORY_S", "DEFAULT_SLURM_VERSION", "DEFAULT_SPEED", "StartOptions", "find_store", "start_cluster"]

DEFAULT_POLICY: Final = "slurm"
DEFAULT_SPEED: Final = 60.0
DEFAULT_HISTORY_S: Final = 86400
DEFAULT_SLURM_VERSION: Final = "23.11.0"  # what a mock cluster says it is where the site file does not
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How to start a mock cluster; ``None`` is *not given*.

    ``load`` is the share of all node time that other users' jobs would use, ``history_s`` how many seconds of them lie
    behind the start, ``speed`` how many virtual seconds pass in one of the wall clock.
    """

    name: str | None = None
    speed: float | None = None
    load: float | None = None
    seed: int | None = None
    history_s: int | None = None
    policy: str | None = None


def find_store(
    name: str | None = None, *, stopped: bool = False, wall: Callable[[], float] = time.time
) -> ClusterStore:
    """Return the mock cluster meant: ``$HPCPLAN_MOCK``'s, the one called ``name``, or the only one that runs.

    With ``stopped``, one that has been stopped will do where none runs.

    Raises:
        InputError: more than one could be meant.
        SlurmUnreachableError: none runs.
    """
    explicit = os.environ.get("HPCPLAN_MOCK")
    if explicit or name is not None:
        store = ClusterStore(Path(explicit) if explicit else _directory(name or ""), wall=wall)
        if store.running or (stopped and store.exists):
            return store
        raise _none(f"mock cluster {name!r} does not run" if name and not explicit else f"none runs in {explicit}")
    stores = _all(wall)
    running = [store for store in stores if store.running]
    chosen = running or (stores if stopped else [])
    if len(chosen) > 1:
        names = ", ".join(store.directory.name for store in chosen)
        raise InputError(
            f"more than one mock cluster could be meant: {names}", hint="say which: --name, or $HPCPLAN_MOCK"
        )
    if not chosen:
        raise _none("no mock cluster runs")
    return chosen[0]


def start_cluster(
    site: LoadedSite,
    options: StartOptions = StartOptions(),
    *,
    directory: Path | None = None,
    wall: Callable[[], float] = time.time,
) -> ClusterStore:
    """Start a mock cluster of ``site``, or go on with the one of that name that was stopped.

    ``directory`` holds its state; ``$HPCPLAN_MOCK`` if absent, else one in the user's data folder.

    Raises:
        InputError: an option that makes no sense.
        ConflictError: it runs already, another one runs and no name was given, or the stopped one is of another site or
            was started with other options.
    """
    from hpcplan.validation import canonical_json

    _check(options)
    explicit = directory or os.environ.get("HPCPLAN_MOCK")
    name = options.name or site.site.name
    store = ClusterStore(Path(explicit) if explicit else _directory(name), wall=wall)
    if store.running:
        raise ConflictError(f"mock cluster {store.settings().name!r} is running already", hint="hpcplan mock stop")
    if not explicit and options.name is None:
        others = [other.directory.name for other in _all(wall) if other.running]
        if others:
            message = f"another mock cluster is running: {', '.join(others)}"
            raise ConflictError(message, hint="stop it (hpcplan mock stop), or name this one with --name")
    settings = _settings(name, site, options)
    if store.exists:
        _check_same(store.settings(), settings, options)
        store.resume(speed=options.speed)
    else:
        speed = DEFAULT_SPEED if options.speed is None else options.speed
        slurm = cluster_of_site(site.site)
        store.create(settings, slurm.machine, canonical_json(site.site) + "\n", speed=speed, slurm=slurm)
    return store


def _settings(name: str, site: LoadedSite, options: StartOptions) -> Settings:
    slurm = site.site.slurm
    history_s = options.history_s if options.history_s is not None else DEFAULT_HISTORY_S
    return Settings(
        name=name,
        cluster=slurm.cluster or site.site.name,
        site_sha256=site.sha256,
        slurm_version=slurm.version or DEFAULT_SLURM_VERSION,
        policy=options.policy or DEFAULT_POLICY,
        load=options.load,
        seed=1 if options.seed is None else options.seed,
        history_s=history_s if options.load is not None else 0,
    )


def _check(options: StartOptions) -> None:
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise InputError(f"{options.name!r} cannot name a mock cluster: letters, digits, '_', '-' and '.' can")
    if options.speed is not None and not 0 <= options.speed <= 1e6:
        raise InputError("the speed must be between 0 (the clock stands still) and 1,000,000")
    if options.load is not None and not 0 < options.load <= 2:
        raise InputError("the load must be above 0 and at most 2: 0.7 means that others use 70 % of all node time")
    if options.load is None and (options.history_s is not None or options.seed is not None):
        raise InputError("a history or a seed means nothing without other users: give a load too")
    if options.history_s is not None and options.history_s < 0:
        raise InputError("the history must be zero or more")
    if options.policy not in (None, "slurm"):
        policy_named(options.policy)


def _check_same(old: Settings, new: Settings, options: StartOptions) -> None:
    """Refuse to go on with a stopped cluster as if it were another."""
    hint = "start it without these options to go on with it, or delete it first: hpcplan mock stop --purge"
    if old.site_sha256 != new.site_sha256:
        raise ConflictError(f"the stopped mock cluster {old.name!r} is of another site, or of an older file", hint=hint)
    for field in ("load", "seed", "history_s", "policy"):
        if getattr(options, field) is not None and getattr(old, field) != getattr(new, field):
            how = "without load" if getattr(old, field) is None else f"with {field} {getattr(old, field)}"
            message = f"the stopped mock cluster {old.name!r} was started {how}"
            raise ConflictError(message, hint=hint)


def _directory(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a mock cluster: letters, digits, '_', '-' and '.' can")
    return data_dir() / "mock" / name


def _all(wall: Callable[[], float]) -> list[ClusterStore]:
    root = data_dir() / "mock"
    if not root.is_dir():
        return []
    stores = [ClusterStore(path, wall=wall) for path in sorted(root.iterdir()) if path.is_dir()]
    return [store for store in stores if store.exists]


def _none(message: str) -> SlurmUnreachableError:
    return SlurmUnreachableError(message, hint="start one: hpcplan mock start SITE")
