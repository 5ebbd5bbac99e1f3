"""The token bucket that keeps invented ids from running up a bill."""

from __future__ import annotations

from proxy.clock import Clock
from proxy.delivery.tokens import TokenBucket


class Standing(Clock):
    """A clock that is moved by hand."""

    time = 100.0

    def monotonic(self) -> float:
        return self.time


def taken(bucket: TokenBucket, tries: int = 100) -> int:
    return sum(bucket.take() for _ in range(tries))


def test_it_begins_full_and_gives_its_rate() -> None:
    clock = Standing()
    bucket = TokenBucket(8, 20, clock)
    assert taken(bucket) == 20
    clock.time += 0.5
    assert taken(bucket) == 4
    clock.time += 0.0625
    assert taken(bucket) == 0
    clock.time += 0.0625
    assert taken(bucket) == 1


def test_a_long_pause_gives_no_more_than_the_burst() -> None:
    clock = Standing()
    bucket = TokenBucket(10, 20, clock)
    taken(bucket)
    clock.time += 1e6
    assert taken(bucket) == 20


def test_less_than_one_a_second_still_gives_one() -> None:
    clock = Standing()
    bucket = TokenBucket(0.1, 0.1, clock)
    assert taken(bucket) == 1
    clock.time += 9.9
    assert taken(bucket) == 0
    clock.time += 0.2
    assert taken(bucket) == 1
