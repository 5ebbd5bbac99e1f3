"""How soon a worker that died is replaced."""

from __future__ import annotations

from proxy.clock import Clock
from proxy.supervisor.backoff import Deaths


class Steps(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


def lives(deaths: Deaths, clock: Steps, *seconds: float) -> list[float]:
    """Waits after so many lives, one after the other."""
    waits = []
    for life in seconds:
        deaths.begin()
        clock.at += life
        waits.append(deaths.pause())
    return waits


def test_a_single_death_costs_no_wait() -> None:
    clock = Steps()
    assert lives(Deaths(clock), clock, 1.0) == [0.0]


def test_who_keeps_dying_early_is_waited_for_longer_and_longer_up_to_a_limit() -> None:
    clock = Steps()
    waits = lives(Deaths(clock), clock, *[0.1] * 12)
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0, 10.0]
    assert lives(Deaths(clock), clock, *[0.0] * 3000)[-1] == 10.0


def test_a_long_life_makes_up_for_early_deaths() -> None:
    clock = Steps()
    assert lives(Deaths(clock), clock, 0.1, 0.1, 60.0, 0.1) == [0.0, 0.25, 0.0, 0.0]
