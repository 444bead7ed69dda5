from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.report import build_report, render
from hpcplan.report.model import Report
from hpcplan.slurm.records import JobRecord, JobState

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b\nc", "{{ 7 * 7 }}", "x`*_[y](z)",
    "\u202egnp.exe", "\ud800", "=1+1", "", "null", "'; DROP TABLE", "&amp;", "A" * 300,
]  # fmt: skip


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def report(made_up: ModuleType) -> Report:
    records = made_up.records(600, seed=5)
    hostile = [
        dataclasses.replace(
            records[i], user=text, account=text, name=text, partition=text, state=JobState.COMPLETED,
            submit_time=made_up.START, start_time=made_up.START + 60, end_time=made_up.START + 3660,
        )
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    return build_report(
        [*hostile, *records[len(HOSTILE) :]], start=made_up.START, end=made_up.START + made_up.DAY,
        nodes=made_up.nodes(), cluster="<b>cluster</b>", source="made-up | records", zone=ZoneInfo("UTC"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render(report, "html", zone=ZoneInfo("UTC"))


def test_the_page_needs_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    for attributes in (attributes for _, attributes in page.tags):
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert name not in attributes
    assert "url(" not in html
    assert "@import" not in html
    assert not page.named("link", "iframe", "object", "embed", "img")
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert len(html.encode()) < 2_000_000


def test_hostile_names_stay_text(html: str) -> None:
    page = Page(html)
    assert len(page.named("script")) == 1
    assert not page.named("b", "img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html


def test_the_page_can_be_read_without_seeing_it(html: str) -> None:
    page = Page(html)
    assert page.named("html")[0]["lang"] == "en"
    assert page.named("main")
    assert all("scope" in attributes for attributes in page.named("th"))
    pictures = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(pictures) >= 4
    ids = {attributes.get("id") for _, attributes in page.tags}
    for svg in pictures:
        assert set((svg["aria-labelledby"] or "").split()) <= ids
    assert len(page.named("figcaption")) == len(page.named("figure")) == len(pictures)
    named = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(named) == len(set(named))


def test_the_page_follows_the_reader_s_theme_and_prints(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html


def test_markdown_tables_hold_together_whatever_the_names(report: Report) -> None:
    text = render(report, "md", zone=ZoneInfo("UTC"))
    assert "<script>" not in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) >= 5
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_json_has_every_figure_with_its_coverage(report: Report) -> None:
    data = json.loads(render(report, "json"))
    assert data["schema"] == "hpcplan-report/1"
    assert data["jobs"]["total"] == report.jobs.total
    for name in ("wait", "slowdown", "core_hours", "cpu_utilisation", "cpu_efficiency", "idle_gpu_hours"):
        assert set(data[name]) >= {"coverage", "known", "total"}
    assert data["cpu_utilisation"]["value"] == pytest.approx(report.cpu_utilisation.value)
    assert [row["name"] for row in data["by_user"]].count("alice") == 1
    assert "jobs_table" not in data


def test_csv_has_one_row_an_attempt_and_leaves_the_unknown_empty(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert len(rows) == report.jobs.total
    by_id = {row["job_id"]: row for row in rows}
    unknown = report.jobs_table.filter(report.jobs_table["cpu_efficiency"].is_null())["label"][0]
    assert by_id[unknown]["cpu_efficiency"] == ""
    assert {row["name"] for row in rows} >= {"a|b\nc", "=1+1"}


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    for form in ("html", "md", "json", "csv"):
        assert render(report, form, zone=ZoneInfo("UTC")) == render(report, form, zone=ZoneInfo("UTC"))


def test_times_are_shown_in_the_zone_asked_for(report: Report) -> None:
    assert "2024-05-01 00:00" in render(report, "md", zone=ZoneInfo("UTC"))
    assert "2024-05-01 02:00" in render(report, "md", zone=ZoneInfo("Europe/Berlin"))


def test_a_report_of_no_jobs_is_still_a_page() -> None:
    empty = build_report([], start=0, end=3600)
    for form in ("html", "md", "json", "csv"):
        assert render(empty, form)
    assert "NaN" not in render(empty, "json")


def test_a_user_s_template_replaces_ours_file_by_file(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "style.css").write_text("body { color: hotpink }")
    assert "hotpink" in render(report, "html", templates=tmp_path)
    (folder / "page.md.j2").write_text("{{ report.jobs.total }} jobs\n")
    assert render(report, "md", templates=tmp_path) == f"{report.jobs.total} jobs\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ report.jbos }}", "jbos"), ("{% if %}", "Expected"), ("{% include 'absent' %}", "absent")],
)
def test_a_broken_template_is_one_clear_error(report: Report, tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.md.j2").write_text(template)
    with pytest.raises(InputError, match=message) as caught:
        render(report, "md", templates=tmp_path)
    assert "page.md.j2" in str(caught.value)


def test_a_folder_of_templates_that_is_not_there_is_an_error(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        render(report, "html", templates=tmp_path / "absent")


def test_two_hundred_users_fit_on_the_page_and_the_rest_is_counted(made_up: ModuleType) -> None:
    records = [
        dataclasses.replace(record, user=f"user{number}", account=f"group{number}")
        for number, record in enumerate(made_up.records(3000, seed=9))
    ]
    report = build_report(records, start=made_up.START, end=made_up.START + made_up.DAY)
    page = render(report, "html")
    assert "the first 200 of" in page
    assert len(page.encode()) < 2_000_000


@given(st.text(max_size=30), st.integers(0, 10**9), st.one_of(st.none(), st.integers(1, 10**9)))
@settings(max_examples=30, deadline=None)
def test_any_name_and_any_size_can_be_rendered(name: str, run: int, cpus: int | None) -> None:
    job = JobRecord(
        1, JobState.COMPLETED, name=name, user=name, account=name, partition=name, submit_time=0, start_time=0,
        end_time=run, cpus=cpus, node_list=name,
    )  # fmt: skip
    report = build_report([job], start=0, end=run + 1)
    for form in ("html", "md", "json", "csv"):
        render(report, form).encode()
