"""Running checks side by side, each for so long and no longer.

Belongs here: time, and what is made of a check that does not end or breaks. Must not know: what any
check tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from proxy.cli.doctor.finding import Finding, Notes, failure
from proxy.errors import FirstviewError

T = TypeVar("T")

LONGEST: Final = 30.0
"""Seconds that one check may take; its steps have shorter limits of their own."""


class Check(Protocol):
    """Something to try."""

    @property
    def area(self) -> str:
        """What it is about, in a word or two."""
        ...

    async def run(self, notes: Notes) -> None:
        """Try it and write down what is found."""
        ...


async def run_checks(
    checks: Sequence[Check],
    *,
    longest: float = LONGEST,
    told: Callable[[Notes, bool], None] = lambda _notes, _ended: None,
) -> list[Finding]:
    """Run all at once; returns what they found in the order of the checks.

    `told` hears of every piece of news, and of the end of each check.
    """
    books = [_book(check, told) for check in checks]
    async with asyncio.TaskGroup() as group:
        for check, notes in zip(checks, books, strict=True):
            group.create_task(_bounded(check, notes, longest, told))
    return [finding for notes in books for finding in notes.findings]


def _book(check: Check, told: Callable[[Notes, bool], None]) -> Notes:
    notes = Notes(check.area, lambda: told(notes, False))
    return notes


async def _bounded(
    check: Check, notes: Notes, longest: float, told: Callable[[Notes, bool], None]
) -> None:
    try:
        async with asyncio.timeout(longest):
            await check.run(notes)
    except TimeoutError:
        notes.add(
            notes.step or "time",
            failure(
                f"no answer within {longest:g} s",
                f"find out why {check.area} hangs: a firewall that drops packets, a disk or a"
                " server that does not answer",
            ),
        )
    except FirstviewError as error:
        notes.add(notes.step or "trying", failure(error.detail, ""))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
        text = f"the check itself broke: {type(error).__name__}: {error}"
        notes.add(
            notes.step or "trying", failure(text, "this is a mistake in firstview: report it")
        )
    finally:
        told(notes, True)


async def apart(work: Callable[[], T]) -> T:
    """Do what blocks in a thread that nobody waits for at the end: a disk may hang for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(outcome)  # type: ignore[arg-type]  # T, where there is no error
        else:
            future.set_exception(error)

    def run() -> None:
        outcome, failed = None, None
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001 - it is whoever waits who handles it
            failed = error
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(settle, outcome, failed)

    threading.Thread(target=run, daemon=True, name="doctor").start()
    return await future
