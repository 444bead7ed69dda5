"""``hpcplan track``: one process that keeps campaigns going."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import open_backend, settle_s
from hpcplan.cli.output import echo_json, format_option, narrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hpcplan.campaign import Round, Tracker

__all__ = ["command"]


@click.command()
@click.argument("campaigns", nargs=-1)
@click.option("--once", is_flag=True, help="Take one round and leave, for scrontab and cron.")
@click.option("--until-done", is_flag=True, help="Leave when no campaign moves any more.")
@click.option("--interval", "interval_s", type=click.FloatRange(min=0.1), metavar="SECONDS",
              help="Time between rounds.  [default: 15 on a real cluster, 1 on a mock]")  # fmt: skip
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve figures for Prometheus; on localhost unless said.")
@format_option
def command(
    campaigns: tuple[str, ...], once: bool, until_done: bool, interval_s: float | None, metrics: str | None,
    output_format: str,
) -> int:  # fmt: skip
    """Keep campaigns going: submit, retry, replan and tell, by their policies.

    CAMPAIGNS are directories or names; without any, all on the list of 'hpcplan list' that have not ended. What a
    campaign does by itself is in policy.yaml in its directory. The service keeps nothing of its own: it can be stopped
    (Ctrl-C, SIGTERM) or killed at any time, and two of them do no harm.

    \b
    Examples:
      hpcplan track
      hpcplan track --metrics 9464
      hpcplan track --once            # as: scrontab, every 5 minutes
    """
    from hpcplan.campaign import Tracker, polite_interval_s

    shown = _Shown()
    observers: list[Callable[[Round], None]] = [] if output_format == "json" else [shown]
    server = _serve(metrics, observers) if metrics is not None else None

    def on_round(found: Round) -> None:
        for observe in observers:
            observe(found)

    tracker = Tracker(
        _directories(campaigns), open_backend, settle_s=settle_s, on_round=on_round,
        interval_s=lambda backend: polite_interval_s(backend) if interval_s is None else interval_s,
    )  # fmt: skip
    _stop_on_signals(tracker)
    try:
        found = tracker.round() if once else tracker.run(until_done=until_done)
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
    if once:
        on_round(found)
    if output_format == "json":
        echo_json(_as_dict(found))
    unwell = found.problems or any(turn.status.state.value == "failed" for turn in found.turns.values())
    return int(bool(unwell) and (once or until_done))


def _directories(words: tuple[str, ...]) -> Callable[[], Iterable[Path]]:
    from hpcplan.campaign import campaigns, find_campaign

    named = [find_campaign(word, Path.cwd())[0].resolve() for word in words]
    return lambda: named or [Path(entry.directory) for entry in campaigns() if entry.exists]


def _stop_on_signals(tracker: Tracker) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: tracker.stop())


def _serve(address: str, observers: list[Callable[[Round], None]]) -> Any:
    from prometheus_client import start_http_server

    from hpcplan.campaign.metrics import Metrics

    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise click.BadParameter(f"{address!r} is no port, and no HOST:PORT", param_hint="--metrics")
    shown = Metrics()
    try:
        server, _ = start_http_server(int(port), addr=host or "localhost", registry=shown.registry)
    except OSError as error:
        raise click.ClickException(f"--metrics {address}: {error.strerror or error}") from None
    observers.append(shown.observe)
    narrate(f"figures at http://{host or 'localhost'}:{server.server_port}/metrics")
    return server


class _Shown:
    """Prints a line where something changed since the round before."""

    def __init__(self) -> None:
        self._lines: dict[Path, str] = {}

    def __call__(self, found: Round) -> None:
        from hpcplan.cli.status import headline

        for directory, turn in found.turns.items():
            for act in turn.acts:
                click.echo(f"{turn.status.campaign}: {act}")
            self._show(directory, headline(turn.status))
        for directory, problem in found.problems.items():
            self._show(directory, f"{directory.name}: {problem}")

    def _show(self, directory: Path, line: str) -> None:
        if self._lines.get(directory) != line:
            self._lines[directory] = line
            click.echo(line)


def _as_dict(found: Round) -> dict[str, Any]:
    return {
        "campaigns": [
            {
                "campaign": turn.status.campaign, "directory": str(directory), "state": turn.status.state.value,
                "acts": list(turn.acts), "gpu_hours": turn.usage.gpu_hours, "node_hours": turn.usage.node_hours,
                "cost": turn.usage.cost,
            }
            for directory, turn in found.turns.items()
        ],
        "problems": {str(directory): text for directory, text in found.problems.items()},
        "answers": found.answers,
    }  # fmt: skip
