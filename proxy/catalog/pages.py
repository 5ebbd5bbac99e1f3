"""One page of a long list.

Belongs here: what a page holds, and how much at most. Must not know: what is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MAX_PAGE: Final = 500
"""Items that one page holds at most."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items in the list's order, and where the next page starts (None: this was the last).

    It can hold fewer than were asked for, even none, and still have a next one.
    """

    items: tuple[T, ...]
    next: str | None
