"""Portfolios that cannot be had."""

from __future__ import annotations

import pytest

from hpcplan.errors import InfeasibleError
from hpcplan.schedule.sharing.impossible import refuse_impossible
from hpcplan.schedule.sharing.problem import Job, Option, Problem


def portfolio(budget: float) -> Problem:
    return Problem({"gpu": 1}, (Job("a", (Option("gpu", 1, 3600.0, cost=10.2),)),), budget=budget)


def test_the_budget_that_is_named_is_enough_and_what_is_enough_is_not_refused() -> None:
    with pytest.raises(InfeasibleError, match="costs 11 USD, but the budget is 10") as caught:
        refuse_impossible(portfolio(10.0), "USD")
    assert "a budget of 11" in str(caught.value.hint)
    refuse_impossible(portfolio(11.0), "USD")
    refuse_impossible(portfolio(10.5), "USD")
