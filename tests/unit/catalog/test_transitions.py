"""The table of transitions says what the design says."""

from itertools import product

import pytest

from proxy.catalog.transitions import TRANSITIONS, check
from proxy.errors import InvalidTransition
from proxy.records import Status

_FORBIDDEN = {
    ("pending", "lost"),
    ("available", "pending"),
    ("available", "failed"),
    ("stored", "failed"),
    ("stored", "pending"),
    ("failed", "pending"),
    ("failed", "lost"),
    ("lost", "pending"),
    ("lost", "failed"),
}


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_a_transition_is_allowed_or_named_in_the_error(before: Status, after: Status) -> None:
    if (before, after) in _FORBIDDEN:
        with pytest.raises(InvalidTransition, match=f"x is {before}: it cannot become {after}"):
            check("x", before, after)
    else:
        check("x", before, after)


def test_every_status_has_a_line() -> None:
    assert TRANSITIONS.keys() == set(Status)
