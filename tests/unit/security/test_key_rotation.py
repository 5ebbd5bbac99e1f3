"""Keys of links are changed in the order of docs/links.md, and nobody is refused at any moment."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from proxy.secret_lists import NamedKey
from proxy.security.links import Links
from tests.fakes.edge_rules import is_timed_hmac_valid_v0

OLD = NamedKey("2026-11", b"the key of this autumn")
NEW = NamedKey("2027-01", b"the key of next winter")
NOW, LIFE = 1_795_300_000, 3600
PATH = "/videos/clip.mp4"


@dataclass(frozen=True)
class Step:
    """What edge and origin are told in one step, and who signs by then."""

    origin: tuple[NamedKey, ...]
    edge: tuple[NamedKey, ...]
    signers: tuple[NamedKey, ...]
    """Keys of links that are in anybody's hands, and have not run out."""


DOCUMENTED = [
    Step((OLD,), (OLD,), (OLD,)),
    Step((OLD, NEW), (OLD, NEW), (OLD,)),
    Step((NEW, OLD), (OLD, NEW), (OLD, NEW)),
    Step((NEW, OLD), (OLD, NEW), (NEW,)),  # a link's life later
    Step((NEW,), (NEW,), (NEW,)),
]
"""The steps under "Changing keys", from before the first until after the last."""


def are_refused(steps: list[Step]) -> bool:
    """Whether a link that counts is refused anywhere while one step follows the other.

    Replicas and the edge change over one by one, so that both steps are in force at once.
    """
    for before, after in itertools.pairwise(steps):
        # A link of a step's first key may be made by whichever replica has reached it.
        held = {*before.signers, before.origin[0], after.origin[0]}
        for key, step in itertools.product(held, (before, after)):
            link = Links([key], LIFE).sign(PATH, NOW).path
            at_origin = Links(step.origin, LIFE).holds(PATH, link.partition("?")[2], NOW)
            at_edge = any(
                is_timed_hmac_valid_v0(each.secret.decode(), link, LIFE, NOW, 8)
                for each in step.edge
            )
            if not (at_origin and at_edge):
                return True
    return False


def test_nobody_is_refused_while_a_key_is_changed() -> None:
    assert not are_refused(DOCUMENTED)


@pytest.mark.parametrize("left_out", [1, 3], ids=["accepting it first", "waiting"])
def test_each_step_is_needed(left_out: int) -> None:
    assert are_refused(DOCUMENTED[:left_out] + DOCUMENTED[left_out + 1 :])
