"""Secrets that rotate: several in one setting, newest first.

Belongs here: how such a setting is written, and what is wrong with one that makes no sense; never a
secret's own text in what is said of it. Must not know: what the secrets are for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SHORTEST: Final = 16
"""Characters; whoever has seen one link can try secrets at leisure, and short ones are found."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SECRET: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that is spoken of by its name. `secret` is the text itself, in UTF-8."""

    name: str
    secret: bytes

    def __repr__(self) -> str:
        return f"NamedKey({self.name!r})"


def named_keys(text: str) -> tuple[NamedKey, ...]:
    """Read `name:secret,name:secret,…`, newest first; raises ValueError that says what is wrong."""
    keys = []
    for number, item in enumerate(_items(text), 1):
        name, colon, secret = item.partition(":")
        if not colon or _NAME.fullmatch(name) is None:
            raise ValueError(
                f"key {number} must be written name:secret, its name letters, digits, '.', '_' and"
                " '-', at most 32 of them"
            )
        keys.append(NamedKey(name, _secret(secret, f"the secret of {name}")))
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two keys are named {twice}")
    return tuple(keys)


def secrets(text: str) -> tuple[bytes, ...]:
    """Read `secret,secret,…`, newest first; raises ValueError that says what is wrong."""
    return tuple(_secret(item, f"secret {number}") for number, item in enumerate(_items(text), 1))


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _secret(text: str, which: str) -> bytes:
    if len(text) < SHORTEST or _SECRET.fullmatch(text) is None:
        raise ValueError(
            f"{which} must be {SHORTEST} or more printable ASCII characters without blanks and"
            " commas, as `openssl rand -hex 32` writes them"
        )
    return text.encode("ascii")
