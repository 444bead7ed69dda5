"""Waiting times from queueing theory: M/M/1, M/M/c (Erlang C), M/G/1 (Pollaczek–Khinchine), G/G/c (Allen–Cunneen).

Rates are per second (or per any unit, as long as it is the same one); waits exclude service. Sources: Kleinrock,
Queueing Systems I (1975), eqs. 3.22–3.24 (M/M/1), 3.40 (Erlang C), 5.63 (Pollaczek–Khinchine); Allen, Probability,
Statistics, and Queueing Theory, 2nd ed. (1990), section 5.2 (the Allen–Cunneen approximation).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Wait", "allen_cunneen", "erlang_c", "mg1", "mm1", "mmc"]


@dataclass(frozen=True, slots=True)
class Wait:
    """``load`` ρ, probability that an arrival waits, mean wait W_q; the last two ``None`` where ρ ≥ 1: unstable."""

    load: float
    wait_probability: float | None
    mean_wait: float | None

    @property
    def stable(self) -> bool:
        """Whether the queue has a steady state at all."""
        return self.load < 1


def mm1(arrival_rate: float, service_rate: float) -> Wait:
    """One server, exponential arrivals and service: W_q = ρ / (μ − λ).

    >>> round(mm1(0.8, 1.0).mean_wait, 9)
    4.0
    """
    load = _load(arrival_rate, service_rate, 1)
    return Wait(load, load, load / (service_rate - arrival_rate)) if load < 1 else Wait(load, None, None)


def erlang_c(servers: int, offered_load: float) -> float:
    """Return the probability that an arrival has to wait, with ``offered_load`` a = λ/μ < servers.

    From Erlang B by its recursion B(n) = a·B(n−1) / (n + a·B(n−1)), which neither overflows nor cancels:
    C = c·B / (c − a·(1 − B)).

    Raises:
        ValueError: no servers, a negative load, or a load that they cannot carry.
    """
    if servers < 1 or not 0 <= offered_load < servers:
        raise ValueError(f"Erlang C needs 0 <= offered load < servers, not {offered_load} and {servers}")
    blocking = 1.0
    for number in range(1, servers + 1):
        blocking = offered_load * blocking / (number + offered_load * blocking)
    return servers * blocking / (servers - offered_load * (1 - blocking))


def mmc(arrival_rate: float, service_rate: float, servers: int) -> Wait:
    """``servers`` alike, exponential arrivals and service: W_q = C / (c·μ − λ).

    >>> round(mmc(1.6, 1.0, 2).mean_wait, 5)
    1.77778
    """
    load = _load(arrival_rate, service_rate, servers)
    if load >= 1:
        return Wait(load, None, None)
    waits = erlang_c(servers, arrival_rate / service_rate)
    return Wait(load, waits, waits / (servers * service_rate - arrival_rate))


def mg1(arrival_rate: float, mean_service: float, second_moment: float) -> Wait:
    """One server, exponential arrivals, any service: W_q = λ·E[S²] / (2·(1 − ρ)).

    >>> round(mg1(0.8, 1.0, 1.0).mean_wait, 9)  # M/D/1
    2.0
    """
    if second_moment < mean_service**2 * (1 - 1e-9):
        raise ValueError(f"E[S²] = {second_moment} is below E[S]² = {mean_service**2}")
    load = _load(arrival_rate, 1 / mean_service if mean_service > 0 else 0.0, 1)
    if load >= 1:
        return Wait(load, None, None)
    return Wait(load, load, arrival_rate * second_moment / (2 * (1 - load)))


def allen_cunneen(
    arrival_rate: float, service_rate: float, servers: int, arrival_variation: float, service_variation: float
) -> Wait:
    """``servers`` alike, any arrivals and service: W_q ≈ (C_a² + C_s²)/2 · W_q of M/M/c.

    ``arrival_variation`` and ``service_variation`` are the squared coefficients of variation (variance / mean²) of the
    times between arrivals and of the service. Exact for M/M/c and M/G/1; otherwise an approximation.

    >>> round(allen_cunneen(0.8, 1.0, 1, 1.0, 0.0).mean_wait, 9)  # M/D/1
    2.0

    Raises:
        ValueError: a rate, a number of servers or a variation that cannot be.
    """
    if arrival_variation < 0 or service_variation < 0:
        raise ValueError("a squared coefficient of variation is zero or more")
    found = mmc(arrival_rate, service_rate, servers)
    if found.mean_wait is None:
        return found
    return Wait(found.load, found.wait_probability, found.mean_wait * (arrival_variation + service_variation) / 2)


def _load(arrival_rate: float, service_rate: float, servers: int) -> float:
    if arrival_rate < 0 or service_rate <= 0 or servers < 1:
        raise ValueError("arrival rate must be zero or more; service rate and servers above zero")
    return arrival_rate / (servers * service_rate)
