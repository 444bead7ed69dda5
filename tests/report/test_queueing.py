from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.report.queueing import erlang_c, mg1, mm1, mmc


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
