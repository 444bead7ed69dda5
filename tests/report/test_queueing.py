from __future__ import annotations

import math
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.report import build_report, render
from hpcplan.report.queueing import allen_cunneen, erlang_c, mg1, mm1, mmc


def test_published_values() -> None:
    assert mm1(0.8, 1.0).mean_wait == pytest.approx(4.0)
    assert erlang_c(2, 1.6) == pytest.approx(0.71111, abs=1e-5)
    assert mmc(1.6, 1.0, 2).wait_probability == pytest.approx(0.71111, abs=1e-5)
    assert mmc(1.6, 1.0, 2).mean_wait == pytest.approx(1.77778, abs=1e-5)
    assert mg1(0.8, 1.0, 1.0).mean_wait == pytest.approx(2.0)  # M/D/1


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_erlang_c_agrees_with_its_definition(servers: int, load: float) -> None:
    offered = load * servers
    last = offered**servers / math.factorial(servers) / (1 - load)
    terms = sum(offered**k / math.factorial(k) for k in range(servers))
    assert erlang_c(servers, offered) == pytest.approx(last / (terms + last), rel=1e-9)


@given(st.floats(0.01, 0.99))
def test_one_server_is_the_same_in_every_formula(load: float) -> None:
    wait = mm1(load, 1.0).mean_wait
    assert mmc(load, 1.0, 1).mean_wait == pytest.approx(wait)
    assert mg1(load, 1.0, 2.0).mean_wait == pytest.approx(wait)  # exponential: E[S²] = 2·E[S]²


@given(st.floats(1.0, 50.0), st.integers(1, 100))
def test_at_full_load_there_is_no_steady_state(load: float, servers: int) -> None:
    for found in (mm1(load, 1.0), mmc(load * servers, 1.0, servers), mg1(load, 1.0, 1.5)):
        assert not found.stable
        assert found.mean_wait is None
        assert found.load >= 1


def test_thousands_of_servers_do_not_overflow() -> None:
    assert 0 <= erlang_c(10_000, 9_900.0) <= 1


@pytest.mark.parametrize("arguments", [(0, 0.5), (2, 2.0), (2, -1.0)])
def test_erlang_c_refuses_what_it_cannot_carry(arguments: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="Erlang C needs"):
        erlang_c(*arguments)


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        mm1(1.0, 0.0)
    with pytest.raises(ValueError, match="below"):
        mg1(0.5, 1.0, 0.5)


@given(st.floats(0.01, 0.99), st.integers(1, 40), st.floats(0.0, 9.0))
def test_allen_cunneen_is_exact_where_theory_is(load: float, servers: int, variation: float) -> None:
    poisson = mmc(load * servers, 1.0, servers).mean_wait
    assert allen_cunneen(load * servers, 1.0, servers, 1.0, 1.0).mean_wait == pytest.approx(poisson)
    one = allen_cunneen(load, 1.0, 1, 1.0, variation).mean_wait
    assert one == pytest.approx(mg1(load, 1.0, 1.0 + variation).mean_wait)


def test_allen_cunneen_of_regular_arrivals_and_service_waits_not_at_all() -> None:
    assert allen_cunneen(0.9, 1.0, 1, 0.0, 0.0).mean_wait == 0
    assert not allen_cunneen(2.0, 1.0, 2, 1.0, 1.0).stable
    with pytest.raises(ValueError, match="variation"):
        allen_cunneen(0.5, 1.0, 1, -1.0, 1.0)


def test_a_report_has_the_four_models_and_says_unstable(made_up: ModuleType) -> None:
    start, end = made_up.START, made_up.START + made_up.DAY
    for count, stable in ((64, True), (1, False)):
        report = build_report(made_up.records(300), start=start, end=end, nodes=made_up.nodes(count))
        assert report.queueing is not None
        assert [one.model for one in report.queueing.models] == ["M/M/1", "M/M/c", "M/G/1", "Allen–Cunneen"]
        assert {one.stable for one in report.queueing.models} == {stable}
        assert ("unstable" in render(report, "html")) == (not stable)
        assert ("unstable" in render(report, "md")) == (not stable)
