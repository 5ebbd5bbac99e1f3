"""The origin lock: which secret opens it, and whose address is believed behind it."""

from __future__ import annotations

import pytest

from proxy.security.origin_lock import OriginLock, client_address

NEW, OLD = b"the new secret of the edge", b"the old secret of the edge"


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_each_secret_opens(secret: bytes) -> None:
    assert OriginLock([NEW, OLD]).admits([secret.decode()])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [NEW.decode().upper()],
        [NEW.decode() + " "],
        [NEW.decode()[:-1]],
        [NEW.decode(), NEW.decode()],
        ["x", NEW.decode()],
        [f"{NEW.decode()}, {OLD.decode()}"],
        ["\udcff"],
        ["ä"],
    ],
)
def test_nothing_else_opens(values: list[str]) -> None:
    assert not OriginLock([NEW, OLD]).admits(values)


def test_a_lock_without_secrets_opens_for_nobody() -> None:
    assert not OriginLock([]).admits([""])


def test_the_edges_word_counts_behind_the_lock_alone() -> None:
    assert client_address(["203.0.113.7"], "10.0.0.1", locked=True) == "203.0.113.7"
    assert client_address(["203.0.113.7"], "10.0.0.1", locked=False) == "10.0.0.1"


@pytest.mark.parametrize("claimed", [[], [""], ["a", "b"], ["\x1b[31m"], ["ä"]])
def test_what_is_no_address_does_not_count(claimed: list[str]) -> None:
    assert client_address(claimed, "10.0.0.1", locked=True) == "10.0.0.1"
