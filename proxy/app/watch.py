"""A watch on something: one question that is asked seldom, and whose last answer is at hand.

Belongs here: when to ask, and for how long an answer is waited for and believed. Must not know:
what is asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from proxy.clock import Clock
from proxy.errors import FirstviewError

Question = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in words, or None; may also raise a FirstviewError."""

log = structlog.get_logger()


class Watch:
    """Nobody asks twice at once, however many look, and however long an answer takes."""

    def __init__(
        self, question: Question, clock: Clock, *, believed: float, again: float, slow: float
    ) -> None:
        """Take times in seconds.

        A good answer is believed for `believed`, a bad one for `again`; a question that has been
        without an answer for `slow` is answered: nothing is heard.
        """
        self._question = question
        self._clock = clock
        self._believed = believed
        self._again = again
        self._slow = slow
        self._wrong: str | None = None
        self._asked_at = self._answered_at = -math.inf
        self._asking: asyncio.Task[None] | None = None

    async def look(self, patience: float) -> str | None:
        """Say what is wrong, or None; waits so many seconds for an answer if it has to ask."""
        if self._asking is None and self._is_old:
            self._asked_at = self._clock.monotonic()
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=patience)
        if self._asking is not None:
            silent = self._clock.monotonic() - self._asked_at
            if silent >= self._slow:
                return f"no answer for {silent:.0f} s"
        return self._wrong

    @property
    def _is_old(self) -> bool:
        age = self._clock.monotonic() - self._answered_at
        return age >= (self._believed if self._wrong is None else self._again)

    async def _ask(self) -> None:
        try:
            self._wrong = await self._question()
        except FirstviewError as error:
            self._wrong = error.detail
        except Exception as error:
            log.exception("a look at a part crashed")
            self._wrong = repr(error)
        finally:
            self._answered_at = self._clock.monotonic()
            self._asking = None

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
