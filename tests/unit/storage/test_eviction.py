"""Which clip goes first: each at last, none twice, and a long tail before the popular ones."""

from __future__ import annotations

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from proxy.storage.eviction import Eviction, Ghost, Queue

SLOTS = 1 << 16


def use(uses: bytearray, clip: int, times: int = 1) -> None:
    slot = clip % len(uses)
    uses[slot] = min(3, uses[slot] + times)


def drain(eviction: Eviction) -> list[int]:
    """All clips, in the order in which they have to go."""
    return [victim[0] for victim in iter(eviction.victim, None)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 1000)),
            st.tuples(st.just("use"), st.integers(0, 200)),
            st.tuples(st.just("evict"), st.just(0)),
        ),
        max_size=200,
    )
)
def test_every_clip_leaves_exactly_once_whatever_happens(steps: list[tuple[str, int]]) -> None:
    uses = bytearray(256)  # few enough for clips to share counters
    eviction, sizes, left = Eviction(uses), dict[int, int](), list[int]()
    for step, number in steps:
        if step == "add":
            clip = len(sizes) * 7919 + 1
            sizes[clip] = number
            eviction.add(clip, number)
        elif step == "use":
            use(uses, number)
        else:
            victim = eviction.victim()
            if victim is not None:
                assert victim[1] == sizes[victim[0]]
                left.append(victim[0])
        assert len(eviction) == len(sizes) - len(left)
        assert eviction.size == sum(sizes.values()) - sum(sizes[clip] for clip in left)
    left += drain(eviction)
    assert sorted(left) == sorted(sizes)
    assert (len(eviction), eviction.size) == (0, 0)


def test_clips_that_nobody_uses_go_in_the_order_in_which_they_came() -> None:
    eviction = Eviction(bytearray(SLOTS))
    for clip in range(1, 21):
        eviction.add(clip, 10)
    assert drain(eviction) == list(range(1, 21))


def test_a_clip_that_is_used_outlives_those_that_came_later() -> None:
    uses = bytearray(SLOTS)
    eviction = Eviction(uses)
    for clip in range(1, 11):
        eviction.add(clip, 10)
    use(uses, 1, times=2)
    assert drain(eviction)[-1] == 1


def test_a_scan_of_many_clips_does_not_push_the_popular_ones_out() -> None:
    uses = bytearray(SLOTS)
    eviction, here = Eviction(uses), set(range(1, 51))
    for clip in here:
        eviction.add(clip, 10)
        use(uses, clip, times=3)
    for clip in range(1001, 6001):
        eviction.add(clip, 10)
        here.add(clip)
        if len(here) > 100:
            victim = eviction.victim()
            assert victim is not None
            here.remove(victim[0])
        use(uses, random.Random(clip).randint(1, 50))
    assert set(range(1, 51)) <= here


def test_a_clip_that_comes_back_soon_is_not_on_trial_again() -> None:
    eviction = Eviction(bytearray(SLOTS))
    for clip in range(1, 11):
        eviction.add(clip, 10)
    assert eviction.victim() == (1, 10)
    eviction.add(1, 10)
    assert drain(eviction)[-1] == 1


def test_found_clips_keep_their_order_and_go_before_nothing_else_is_left() -> None:
    eviction, found = Eviction(bytearray(SLOTS)), Queue()
    for clip in range(1, 11):
        found.push(clip, 10)
    eviction.restore(found)
    assert (len(found), found.size, len(eviction)) == (0, 0, 10)
    assert drain(eviction) == list(range(1, 11))


def test_clips_that_are_used_all_the_time_still_make_room() -> None:
    class Busy(bytearray):
        """Counters that viewers keep at their most, whatever the eviction sets."""

        def __setitem__(self, _slot: object, _uses: object) -> None:
            pass

    eviction = Eviction(Busy(b"\3" * SLOTS))
    for clip in range(1, 11):
        eviction.add(clip, 10)
    assert len(drain(eviction)) == 10


def test_the_ghost_grows_with_the_cache_and_loses_little_by_it() -> None:
    ghost = Ghost()
    for clip in range(1, 1025):
        ghost.add(clip)
    ghost.fit(5000)
    ghost.fit(5000)
    assert all(ghost.take(clip) for clip in range(1, 1025))
    assert not ghost.take(1)


def test_a_clip_costs_few_bytes() -> None:
    eviction, count = Eviction(bytearray(SLOTS)), 100_000
    chance = random.Random(4)
    for _ in range(count):
        eviction.add(chance.getrandbits(64), 1_000_000)
    eviction.victim()
    queue, ghost = eviction._small, eviction._ghost._slots
    held = sum(sys.getsizeof(part) for part in (queue._clips, queue._sizes, ghost))
    assert held / count < 40
