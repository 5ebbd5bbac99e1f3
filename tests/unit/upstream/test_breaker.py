"""The circuit breaker, told what time it is."""

import pytest

from proxy.upstream.breaker import Breaker, Breakers, HostResting, Rules, State

RULES = Rules(failures=3, pause=5.0, window=30.0, ratio=0.5)


def attempt(breaker: Breaker, now: float, *, ok: bool | None) -> bool:
    epoch = breaker.admit(now)
    if epoch is None:
        return False
    breaker.settle(epoch, now, ok=ok)
    return True


def state(breaker: Breaker) -> str:
    return breaker.state.name


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(RULES.failures):
        assert attempt(breaker, now, ok=False)
    return breaker


def test_it_opens_after_enough_failures_in_a_row() -> None:
    breaker = opened()
    assert state(breaker) == "OPEN"
    assert breaker.admit(4.9) is None
    assert breaker.wait(1.0) == pytest.approx(4.0)


def test_a_host_that_nobody_asks_any_more_is_not_said_to_be_left_alone_for_ever() -> None:
    hosts = Breakers(RULES)
    for _ in range(RULES.failures):
        hosts.admit("host", 0.0).settle(0.0, ok=False)
    assert hosts.states(RULES.pause + 59.0) == {"host": State.OPEN}
    assert hosts.states(RULES.pause + 61.0) == {"host": State.HALF_OPEN}
    hosts.admit("host", 100.0).settle(100.0, ok=False)
    assert hosts.states(100.0) == {"host": State.OPEN}


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(RULES)
    for ok in (False, False, True, False, False):
        attempt(breaker, 0.0, ok=ok)
    assert state(breaker) == "CLOSED"


def test_it_opens_when_half_of_the_recent_attempts_failed() -> None:
    breaker = Breaker(RULES)
    for ok in (True, False, True, False, True):
        attempt(breaker, 0.0, ok=ok)
    assert state(breaker) == "CLOSED"
    attempt(breaker, 0.0, ok=False)
    assert state(breaker) == "OPEN"


def test_failures_of_long_ago_are_forgotten() -> None:
    breaker = Breaker(RULES)
    for ok in (True, False, True, False, True):
        attempt(breaker, 0.0, ok=ok)
    attempt(breaker, 31.0, ok=False)
    assert state(breaker) == "CLOSED"


def test_after_the_pause_exactly_one_probe_is_let_through() -> None:
    breaker = opened()
    assert breaker.admit(5.0) is not None
    assert state(breaker) == "HALF_OPEN"
    assert breaker.admit(5.0) is None
    assert 0 < breaker.wait(5.0) <= RULES.pause


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    assert attempt(breaker, 5.0, ok=True)
    assert state(breaker) == "CLOSED"
    assert attempt(breaker, 5.0, ok=False)
    assert state(breaker) == "CLOSED"


def test_a_probe_that_fails_opens_it_for_another_pause() -> None:
    breaker = opened()
    assert attempt(breaker, 5.0, ok=False)
    assert breaker.admit(9.9) is None
    assert breaker.admit(10.0) is not None


def test_a_probe_that_is_broken_off_makes_room_for_the_next_one() -> None:
    breaker = opened()
    assert attempt(breaker, 5.0, ok=None)
    assert breaker.admit(5.0) is not None


def test_what_comes_in_from_before_it_opened_changes_nothing() -> None:
    breaker = Breaker(RULES)
    late = breaker.admit(0.0)
    assert late is not None
    for _ in range(3):
        attempt(breaker, 0.0, ok=False)
    breaker.settle(late, 1.0, ok=True)
    assert state(breaker) == "OPEN"
    probe = breaker.admit(5.0)
    breaker.settle(late, 5.0, ok=False)
    assert state(breaker) == "HALF_OPEN"
    assert probe is not None
    breaker.settle(probe, 5.0, ok=True)
    assert state(breaker) == "CLOSED"


def test_each_host_has_a_breaker_of_its_own() -> None:
    breakers = Breakers(RULES)
    for _ in range(3):
        breakers.admit("down.fal.media", 0.0).settle(0.0, ok=False)
    breakers.admit("up.fal.media", 0.0).settle(0.0, ok=True)
    with pytest.raises(HostResting) as caught:
        breakers.admit("down.fal.media", 0.5)
    assert (caught.value.status, caught.value.headers()) == (503, {"Retry-After": "5"})
    assert caught.value.retryable


def test_a_wait_of_no_time_is_still_a_second_for_the_viewer() -> None:
    assert HostResting(wait=0.0).headers() == {"Retry-After": "1"}
