"""Secrets that rotate: how several are written, and what is said of those that are not right."""

from __future__ import annotations

import pytest

from proxy.secret_lists import NamedKey, named_keys, secrets

ONE, TWO = "0123456789abcdef", "fedcba9876543210"


def test_the_first_is_the_newest() -> None:
    assert named_keys(f" b:{TWO}, a:{ONE} ,") == (
        NamedKey("b", TWO.encode()),
        NamedKey("a", ONE.encode()),
    )
    assert secrets(f"{TWO},{ONE}") == (TWO.encode(), ONE.encode())
    assert (named_keys(""), secrets(" , ")) == ((), ())


def test_a_secret_may_hold_colons() -> None:
    assert named_keys(f"a:{ONE}:{TWO}")[0].secret == f"{ONE}:{TWO}".encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE, "key 1 must be written name:secret"),
        (f"a:{ONE},:{TWO}", "key 2 must be written name:secret"),
        (f"a b:{ONE}", "key 1 must be written name:secret"),
        (f"a:{ONE},a:{TWO}", "two keys are named a"),
        ("a:tooshort4567", "the secret of a must be 16 or more"),
        (f"a:{ONE} x", "the secret of a must be 16 or more"),
        (f"a:{ONE}ä", "the secret of a must be 16 or more"),
    ],
)
def test_a_mistake_is_named_and_no_secret_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        named_keys(text)
    assert ONE not in str(caught.value)
    assert "tooshort" not in str(caught.value)
    assert ONE not in repr(NamedKey("a", ONE.encode()))


def test_a_short_secret_of_the_edge_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match="secret 2 must be 16 or more"):
        secrets(f"{ONE},short")
