"""Predicted against measured steps in the report: shown over time, and a drift is among the advice."""

from __future__ import annotations

import dataclasses
import json
from types import ModuleType

import pytest

from hpcplan.report import build_report, render
from hpcplan.report.mail import plain_text
from hpcplan.report.model import Report
from hpcplan.report.site_facts import SiteFacts, Tracked
from hpcplan.report.tracking_picture import tracking_chart

ONE = Tracked(
    time=0, campaign="c-0", nodes=4, predicted_s=2.0, low_s=1.8, high_s=2.2, actual_s=2.0, average=0.0, limit=1.0,
    drift=None,
)  # fmt: skip


def campaigns(start: int, ratios: list[float], drift: str | None = None) -> tuple[Tracked, ...]:
    rows = [
        dataclasses.replace(ONE, time=start + number, campaign=f"c-{number}", actual_s=2.0 * ratio)
        for number, ratio in enumerate(ratios)
    ]
    rows[-1] = dataclasses.replace(rows[-1], drift=drift)
    return tuple(rows)


def report_of(made_up: ModuleType, tracked: tuple[Tracked, ...]) -> Report:
    records = [dataclasses.replace(one, comment="hpcplan:c-1:train:1") for one in made_up.records(200)]
    facts = SiteFacts(tracked=tracked)
    return build_report(records, start=made_up.START, end=made_up.START + made_up.DAY, known=facts)


def test_steps_are_shown_in_every_form(made_up: ModuleType) -> None:
    report = report_of(made_up, campaigns(made_up.START, [1.0, 1.05, 0.9]))
    assert [row["ratio"] for row in json.loads(render(report, "json"))["tracked"]] == pytest.approx([1.0, 1.05, 0.9])
    page = render(report, "html")
    assert "Predicted against measured steps" in page
    assert "3 of 3 campaigns inside their interval" in page
    assert "predicted against measured" in render(report, "md")
    assert "2 s predicted, 1.8 s measured; no drift" in " ".join(plain_text(report).split())
    assert not [piece for piece in report.advice if piece.kind == "drift"]


def test_slower_training_is_advice_with_what_it_costs(made_up: ModuleType) -> None:
    report = report_of(made_up, campaigns(made_up.START, [1.25] * 6, drift="slower"))
    (piece,) = [piece for piece in report.advice if piece.kind == "drift"]
    assert piece.gain == pytest.approx(0.2 * (report.core_hours.value or 0.0))  # 1 - 1/1.25 of what was held
    assert piece.gain_share == pytest.approx(0.2)
    freeing = [one.gain_share for one in report.advice if one.kind not in ("time limit", "partition")]
    assert freeing == sorted(freeing, reverse=True)
    assert "125.0 % of the predicted time" in piece.finding
    for form in ("html", "md"):
        assert "hpcplan calibrate bench" in render(report, form)
    assert "drifting: slower than predicted" in " ".join(plain_text(report).split())


def test_faster_training_is_said_and_gains_nothing(made_up: ModuleType) -> None:
    report = report_of(made_up, campaigns(made_up.START, [0.8] * 6, drift="faster"))
    (piece,) = [piece for piece in report.advice if piece.kind == "drift"]
    assert piece.gain == 0.0
    assert "faster" in piece.finding


def test_campaigns_after_the_window_are_not_of_it(made_up: ModuleType) -> None:
    late = campaigns(made_up.START + made_up.DAY, [2.0, 2.0], drift="slower")
    report = report_of(made_up, late)
    assert report.tracked == ()
    assert not [piece for piece in report.advice if piece.kind == "drift"]
    assert "Predicted against measured steps" not in render(report, "html")


def test_the_picture_holds_every_point_inside_its_frame(made_up: ModuleType) -> None:
    assert tracking_chart(campaigns(0, [1.0]), None) is None
    for ratios in ([1.0, 1.0], [0.2, 5.0, 1.0], [1.0] * 100, [900.0, 1.0], [0.001, 1.0]):
        chart = tracking_chart(campaigns(1_700_000_000, ratios), None)
        assert chart is not None
        assert {"1"} <= {tick.label for tick in chart.y_ticks}
        for curve in chart.curves:
            points = [tuple(map(float, word.split())) for word in curve.path[1:].split("L")]
            assert all(chart.left <= x <= chart.right and chart.top <= y <= chart.bottom for x, y in points)
