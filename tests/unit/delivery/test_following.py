"""What a look at another process's file means, and when the next one is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.delivery.following import Step, next_step, pause
from proxy.storage.spool_file import Look

looks = st.builds(
    Look,
    size=st.integers(0, 100),
    whole=st.booleans(),
    given_up=st.booleans(),
    linked=st.booleans(),
)


@given(looks, st.booleans())
def test_nobody_goes_on_with_a_file_without_its_lock_and_its_name(look: Look, named: bool) -> None:
    assert next_step(look, locked=False, named=named) is not Step.GO_ON
    assert next_step(look, locked=True, named=False) is not Step.GO_ON


@given(looks, st.booleans(), st.booleans())
def test_only_what_its_filler_called_whole_is_whole(look: Look, locked: bool, named: bool) -> None:
    step = next_step(look, locked=locked, named=named)
    assert look.whole or step is not Step.WHOLE
    assert not look.whole or step in {Step.WHOLE, Step.GO_ON}


@given(looks, st.booleans())
def test_nobody_waits_for_a_filler_that_is_gone(look: Look, named: bool) -> None:
    assert next_step(look, locked=True, named=named) is not Step.WAIT


@given(st.floats(0, 1), st.booleans(), st.integers(1, 1000))
def test_looks_are_frequent_but_bounded_for_all_clips_together(
    last: float, grew: bool, followed: int
) -> None:
    wait = pause(last, grew=grew, followed=followed)
    assert 0.002 <= wait <= max(0.025, followed * 0.0001)
    assert followed / wait <= 10_000 or followed < 100


def test_a_file_that_does_not_grow_is_looked_at_less_and_less_often() -> None:
    waits = [0.0]
    for _ in range(10):
        waits.append(pause(waits[-1], grew=False, followed=1))
    assert waits == sorted(waits)
    assert waits[-1] == 0.025
    assert pause(waits[-1], grew=True, followed=1) == 0.002
