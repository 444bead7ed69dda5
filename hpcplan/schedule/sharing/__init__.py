"""Several workloads share a site: who gets which nodes, when, and what that is worth."""

from hpcplan.schedule.sharing.compare import POLICIES, Outcome, Policy, compare
from hpcplan.schedule.sharing.curves import Pricing
from hpcplan.schedule.sharing.fairness import Fairness, fairness_of, jain
from hpcplan.schedule.sharing.optimum import Solution, solve
from hpcplan.schedule.sharing.portfolio import Portfolio, Wanted, read_portfolio
from hpcplan.schedule.sharing.problem import OBJECTIVES, Job, Objective, Option, Placed, Problem
from hpcplan.schedule.sharing.rules import RULES, share_nodes
from hpcplan.schedule.sharing.simulate import MODES, Mode, Piece, Run

__all__ = [
    "MODES",
    "OBJECTIVES",
    "POLICIES",
    "RULES",
    "Fairness",
    "Job",
    "Mode",
    "Objective",
    "Option",
    "Outcome",
    "Piece",
    "Placed",
    "Policy",
    "Portfolio",
    "Pricing",
    "Problem",
    "Run",
    "Solution",
    "Wanted",
    "compare",
    "fairness_of",
    "jain",
    "read_portfolio",
    "share_nodes",
    "solve",
]
