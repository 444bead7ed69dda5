"""Thresholds, pseudonyms, Prometheus, mail, webhook, and what a night's run rests on."""

from __future__ import annotations

import http.server
import json
import os
import re
import smtplib
import subprocess
import sys
import threading
from datetime import date
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from hpcplan.errors import HpcplanError, InputError
from hpcplan.report import build_report, job_table, render
from hpcplan.report.install import actions, carry_out
from hpcplan.report.mail import message, picture, plain_text, post, send
from hpcplan.report.model import Report
from hpcplan.report.nights import bounds, due, finished, locked, swept
from hpcplan.report.people import pages
from hpcplan.report.privacy import anonymized, secret_in
from hpcplan.report.prometheus import prometheus_text
from hpcplan.report.rightsizing import requests
from hpcplan.report.thresholds import crossed, parse_threshold

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def report(made_up: ModuleType) -> Report:
    return build_report(
        made_up.records(300), start=made_up.START, end=made_up.START + made_up.DAY, nodes=made_up.nodes(16), zone=UTC
    )


def test_a_threshold_says_what_is_crossed(report: Report) -> None:
    value = report.cpu_efficiency.value
    assert value is not None
    assert crossed(report, [parse_threshold("cpu_efficiency<100%"), parse_threshold("jobs.total > 999999")]) == [
        f"cpu_efficiency is {value:.4g}, which is < 1"
    ]
    assert crossed(report, [parse_threshold("wait.p95>=0")])
    for wrong in ("cpu_efficiency", "cpu<<1", "x<many", "<3"):
        with pytest.raises(InputError):
            parse_threshold(wrong)
    for missing in ("no_such<1", "wait<1", "by_user<1"):
        with pytest.raises(InputError):
            crossed(report, [parse_threshold(missing)])


def test_pseudonyms_are_stable_and_leave_no_name(made_up: ModuleType, tmp_path: Path) -> None:
    table, secret = job_table(made_up.records(100)), secret_in(tmp_path)
    assert secret_in(tmp_path) == secret
    assert (tmp_path / "pseudonyms.key").stat().st_mode & 0o077 == 0
    hidden = anonymized(table, secret)
    assert anonymized(table, secret).equals(hidden)
    assert not anonymized(table, b"other")["user"].equals(hidden["user"])
    made = [name for column in ("user", "account", "name") for name in hidden[column].drop_nulls()]
    assert not any(letter.isdigit() for name in made for letter in name)  # or advice would take jobs for the same
    text = render(build_report(hidden, start=made_up.START, end=made_up.START + made_up.DAY), "json")
    assert not [name for name in ("alice", "bob", "physics", "job-10") if f'"{name}"' in text]
    assert hidden["user"].n_unique() == table["user"].n_unique()
    assert hidden["account"].null_count() == table["account"].null_count()
    assert hidden.select(pl.col("cpus").sum()).equals(table.select(pl.col("cpus").sum()))


def test_prometheus_lines_are_of_the_text_format(report: Report) -> None:
    lines = prometheus_text(report).splitlines()
    values = {}
    for line in lines:
        if line.startswith("#"):
            assert line.split()[1] in ("HELP", "TYPE")
            continue
        name, _, value = line.rpartition(" ")
        assert name.startswith("hpcplan_report_")
        assert name.endswith("}")
        values[name] = float(value)
    assert values['hpcplan_report_core_hours{cluster="testbed"}'] == pytest.approx(report.core_hours.value, rel=1e-9)
    assert values['hpcplan_report_jobs{cluster="testbed",event="ended"}'] == report.jobs.ended
    assert "hpcplan_report_cost" not in prometheus_text(report)  # not known is left out


def test_the_mail_has_text_picture_and_page(report: Report) -> None:
    made = message(report, "<html></html>", sender="a@x", recipients=["b@x", "c@x"], zone=UTC)
    kinds = [part.get_content_type() for part in made.walk()]
    assert kinds == ["multipart/mixed", "text/plain", "image/png", "text/html"]
    assert made["Subject"] == "Queue report testbed 2024-05-01"
    assert "What to change" in plain_text(report)
    assert all(len(line) <= 90 for line in plain_text(report).splitlines())
    assert picture(report, UTC).startswith(b"\x89PNG")


def test_mail_goes_through_sendmail_and_says_when_it_does_not(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "sendmail"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/sent\n")
    program.chmod(0o755)
    monkeypatch.setattr("hpcplan.report.mail.shutil.which", lambda *_, **__: str(program))
    made = message(report, "", sender="a@x", recipients=["b@x"], zone=UTC)
    send(made)
    assert b"To: b@x" in (tmp_path / "sent").read_bytes()
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(HpcplanError, match="not sent"):
        send(made)
    with pytest.raises(HpcplanError, match="not sent"):
        send(made, "127.0.0.1:1")


def test_a_webhook_gets_text_and_figures(report: Report) -> None:
    got: list[dict[str, object]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        post(report, f"http://127.0.0.1:{server.server_port}/hook", UTC)
        thread.join()
    assert set(got[0]) == {"text", "report"}
    with pytest.raises(InputError):
        post(report, "file:///etc/passwd")
    with pytest.raises(HpcplanError):
        post(report, "http://127.0.0.1:1/")


def test_missed_nights_are_due_and_none_twice(tmp_path: Path) -> None:
    now = 1_714_608_000 + 5400  # 2024-05-02 01:30 UTC
    assert due(tmp_path, now, UTC, 7) == [date(2024, 5, 1)]
    finished(tmp_path, date(2024, 5, 1))
    assert due(tmp_path, now, UTC, 7) == []
    later = now + 4 * 86400
    assert due(tmp_path, later, UTC, 7) == [date(2024, 5, day) for day in (2, 3, 4, 5)]
    assert due(tmp_path, later, UTC, 2) == [date(2024, 5, 4), date(2024, 5, 5)]


def test_a_night_has_23_or_25_hours_where_clocks_change() -> None:
    nights = [bounds(date(2024, month, day), BERLIN) for month, day in ((3, 31), (10, 27), (5, 1))]
    assert [end - start for start, end in nights] == [23 * 3600, 25 * 3600, 24 * 3600]


def test_runs_do_not_overlap(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(HpcplanError, match="has not ended"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_old_pages_go(tmp_path: Path) -> None:
    for day in range(1, 6):
        (tmp_path / f"2024-05-0{day}.html").touch()
        (tmp_path / f"2024-05-0{day}.json").touch()
    (tmp_path / "latest.html").touch()
    assert swept(tmp_path, 2) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2024-05-04.html", "2024-05-04.json", "2024-05-05.html", "2024-05-05.json", "latest.html",
    ]  # fmt: skip
    assert swept(tmp_path, 0) == 0


def test_a_users_page_names_nobody_else(made_up: ModuleType, report: Report, tmp_path: Path) -> None:
    assert pages(job_table(made_up.records(300)), report, tmp_path, zone=UTC) == 5
    page = (tmp_path / "alice.html").read_text()
    assert "alice" in page
    assert not [name for name in ("bob", "carol", "dave", "erin") if name in page]


@pytest.fixture
def crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for crontab and scrontab that keep the table in a file."""
    table = tmp_path / "table"
    for name in ("crontab", "scrontab"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\nif [ "$1" != -l ]; then cat > {table}\nelif [ -f {table} ]; then cat {table}\n'
            'else echo "no crontab for me" >&2; exit 1; fi\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return table


@pytest.mark.parametrize("kind", ["cron", "scrontab"])
def test_the_table_keeps_what_was_in_it(crontab: Path, kind: str) -> None:
    crontab.write_text("MAILTO=me\n5 4 * * * backup\n")
    for at in ("01:30", "2:05"):  # again, with another time
        for step in actions(kind, at, ["--out", "/srv/a b", "--fail-if", "cpu_efficiency<40%"]):  # type: ignore[arg-type]
            carry_out(step)
    lines = crontab.read_text().splitlines()
    assert lines[:2] == ["MAILTO=me", "5 4 * * * backup"]
    (ours,) = (line for line in lines if "nightly" in line)
    assert ours.startswith("5 2 * * * ")
    assert "'/srv/a b'" in ours
    assert ("\\%" in ours) == (kind == "cron")
    for step in actions(kind, "01:30", [], remove=True):  # type: ignore[arg-type]
        carry_out(step)
    assert crontab.read_text() == "MAILTO=me\n5 4 * * * backup\n"


def test_a_systemd_timer_makes_up_for_missed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    steps = actions("systemd", "01:30", ["--out", "/srv/100%"])
    written = {step.path.name: step.text for step in steps if step.path is not None}
    assert "OnCalendar=*-*-* 01:30:00\nPersistent=true" in written["hpcplan-report.timer"]
    assert "/srv/100%%" in written["hpcplan-report.service"]
    assert steps[-1].command == ("loginctl", "enable-linger")  # else it ends when its user logs out
    for step in steps[:2]:
        carry_out(step)
    assert (tmp_path / "systemd/user/hpcplan-report.timer").exists()
    with pytest.raises(InputError):
        actions("systemd", "25:00", [])


def test_the_command_that_is_installed_can_be_run(crontab: Path) -> None:
    (step,) = actions("cron", "01:30", ["--help"])
    line = next(line for line in step.text.splitlines() if "nightly" in line)
    found = subprocess.run(["/bin/sh", "-c", line.split(" ", 5)[5]], capture_output=True, text=True, check=True)
    assert "Report every night" in found.stdout


@pytest.mark.parametrize("kind", ["cron", "scrontab", "systemd"])
def test_the_night_finds_slurm_and_the_settings_of_this_shell(
    crontab: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sacct = tmp_path / "opt slurm" / "bin" / "sacct"
    sacct.parent.mkdir(parents=True)
    sacct.write_text("#!/bin/sh\n")
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sacct.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HPCPLAN_DATA_DIR", "/data/100% it's $HOME")
    monkeypatch.setenv("SLURM_JWT", "secret")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = actions(kind, "01:30", ["--help"])[0].text  # type: ignore[arg-type]
    assert "secret" not in text
    if kind == "systemd":
        assert 'Environment="HPCPLAN_DATA_DIR=/data/100%% it\'s $HOME"\n' in text
        assert f'Environment="PATH={sacct.parent}:/usr/local/bin:/usr/bin:/bin"\n' in text
        return
    line = next(line for line in text.splitlines() if "nightly" in line).split(" ", 5)[5]
    shown = line.replace("\\%", "%") if kind == "cron" else line  # as cron gives it to the shell
    shown = shown.replace(
        sys.executable, f'{sys.executable} -c \'import os; print(*map(os.getenv, ["PATH", "HPCPLAN_DATA_DIR"]))\' #'
    )
    found = subprocess.run(["/bin/sh", "-c", shown], capture_output=True, text=True, check=True, env={})
    assert found.stdout == f"{sacct.parent}:/usr/local/bin:/usr/bin:/bin /data/100% it's $HOME\n"


def test_what_no_table_can_hold_is_refused(crontab: Path) -> None:
    with pytest.raises(InputError, match="line break"):
        actions("scrontab", "01:30", ["--out", "a\nb"])
    with pytest.raises(InputError, match="cron takes"):
        actions("cron", "01:30", ["--out", "a" * 1000])


def test_a_sender_without_a_machine_gets_this_one(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    class Server:
        def __init__(self, host: str, port: int, timeout: float) -> None: ...

        def __enter__(self) -> Server:
            return self

        def __exit__(self, *args: object) -> None: ...

        def send_message(self, made: EmailMessage) -> None:
            taken.extend([made["From"], made["Date"], made["Message-ID"]])

    monkeypatch.setattr(smtplib, "SMTP", Server)
    send(message(report, "", sender="hpcplan", recipients=["a@example.org"]), "mx:25")
    assert re.fullmatch(r"hpcplan@[A-Za-z0-9.-]+", taken[0])
    assert parsedate_to_datetime(taken[1]).tzinfo is not None
    assert re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", taken[2])


def test_right_sized_requests_are_never_larger_and_fit_what_ran(made_up: ModuleType) -> None:
    report = build_report(made_up.records(400), start=made_up.START, end=made_up.START + made_up.DAY)
    rows = requests(report.jobs_table, made_up.START)
    assert len(rows) > 200
    for row in rows:
        asked, needed = row["asked"], row["needed"]
        assert needed["limit_s"] <= asked["limit_s"]
        assert row["nodes"] <= needed["cpus"] <= asked["cpus"]
        assert needed["memory_bytes"] <= asked["memory_bytes"]
        assert needed["limit_s"] >= min(row["run_s"], asked["limit_s"])
    assert any(row["needed"] != row["asked"] for row in rows)
