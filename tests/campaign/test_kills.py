"""Clients killed with SIGKILL on a mock cluster: a part of what ``python -m tests.campaign.kill`` does at length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import kill


@pytest.fixture
def world(tmp_path: Path) -> Iterator[kill.World]:
    with kill.mock_world(tmp_path) as world:
        yield world


def test_clients_killed_at_random_lose_nothing_and_submit_nothing_twice(world: kill.World) -> None:
    assert kill.at_random(world, 40, random.Random(1)) > 0


def test_a_client_killed_once_at_every_write_and_call_loses_nothing(world: kill.World) -> None:
    # opened, and intent and result of three jobs; ping, three submissions and the look that follows, twice
    assert kill.at_every_point(world) == 7 + 5 + 5


def test_cancelling_killed_at_every_point_is_finished_by_the_next(world: kill.World) -> None:
    assert kill.cancelled_at_every_point(world) >= 8
