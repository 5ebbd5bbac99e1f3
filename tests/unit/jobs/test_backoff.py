"""How long jobs wait, as figures."""

import random

from hypothesis import given
from hypothesis import strategies as st

from proxy.jobs.backoff import backoff, pause


def most(ceiling: float) -> float:
    return ceiling


def least(_ceiling: float) -> float:
    return 0.0


def test_the_longest_wait_doubles_up_to_its_bound() -> None:
    waits = [backoff(n, base=5, longest=60, jitter=most) for n in range(1, 7)]
    assert waits == [5, 10, 20, 40, 60, 60]


def test_chance_never_makes_a_wait_of_no_time() -> None:
    assert [backoff(n, base=5, longest=60, jitter=least) for n in (1, 5)] == [0.5, 0.5]


def test_waits_are_spread_over_all_of_the_time() -> None:
    chance = random.Random(1)
    waits = [
        backoff(4, base=5, longest=60, jitter=lambda top: chance.uniform(0, top))
        for _ in range(1000)
    ]
    assert min(waits) < 2
    assert max(waits) > 38
    assert 18 < sum(waits) / len(waits) < 22


@given(attempt=st.integers(-5, 10**9), base=st.floats(0.001, 1e6), longest=st.floats(0.001, 1e6))
def test_no_wait_is_longer_than_the_longest(attempt: int, base: float, longest: float) -> None:
    wait = backoff(attempt, base=base, longest=longest, jitter=most)
    assert 0 < wait <= max(longest, 0.1 * base)


def test_a_pause_grows_with_age_between_its_bounds() -> None:
    pauses = [pause(age, least=10, longest=300, jitter=least) for age in (0, 80, 800, 10**6)]
    assert pauses == [10, 10, 100, 300]


def test_a_pause_is_longer_by_chance_never_shorter() -> None:
    assert pause(800, least=10, longest=300, jitter=most) == 150


def test_a_generation_from_the_future_waits_like_a_new_one() -> None:
    assert pause(-500, least=10, longest=300, jitter=least) == 10
