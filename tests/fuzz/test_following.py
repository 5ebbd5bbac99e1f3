"""Any interleaving of processes that fill one clip, follow it, fail, end and go on.

Each "process" has descriptors, and so locks, of its own on the one file; dying is what the kernel
makes of it: they are closed. Whatever happens: nobody can read a byte that is not the clip's, nor
the last one before somebody has verified all, and whoever follows is never left waiting for nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.clock import Clock
from proxy.delivery.flights import Flight
from proxy.delivery.follow import Followers
from proxy.delivery.following import Step
from proxy.delivery.spool import Spool
from proxy.errors import SourceUnavailable
from proxy.records import BodyHead, ClipFacts

T = TypeVar("T")

LENGTH = 40
DATA = hashlib.shake_128(b"clip").digest(LENGTH)
FACTS = ClipFacts(
    request_id="clip", length=LENGTH, etag="e" * 32, last_modified=datetime(2026, 1, 1, tzinfo=UTC)
)
HEAD = BodyHead(start=0, stop=LENGTH, total=LENGTH, validator='"tag"')


class Unasked:
    """A source of a clip that the catalog knows nothing of; asking it anything is an error."""

    row = None


SOURCE = cast("Any", Unasked())


@dataclass(slots=True)
class Process:
    """One process's part in the clip."""

    spool: Spool
    flight: Flight

    @property
    def ended(self) -> bool:
        return self.spool.mark.ended


class Following(RuleBasedStateMachine):
    """Processes that do whatever they may do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.executor = ThreadPoolExecutor(1)
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "clip.source.part"
        self.processes: dict[int, Process] = {}
        self.verified: set[int] = set()
        self.followers = Followers(Clock())

    def run(self, work: Coroutine[None, None, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    @initialize()
    def begin(self) -> None:
        self.claim(0)

    def fillers(self) -> list[Process]:
        return [p for p in self.processes.values() if p.spool.filling and not p.ended]

    def readers(self) -> list[Process]:
        return [p for p in self.processes.values() if not p.spool.filling and not p.ended]

    # -- a process that begins, or finds another at it ---

    @rule(number=st.integers(0, 3))
    def claim(self, number: int) -> None:
        if number in self.processes:
            return

        async def claimed() -> Process:
            spool = await Spool.claim(self.path, self.executor)
            return Process(spool, Flight("clip", (SOURCE,), by_range=False))

        process = self.run(claimed())
        self.processes[number] = process
        if process.spool.filling:
            self.run(self._go_on(process))

    async def _go_on(self, process: Process) -> None:
        """With the lock in hand, as `Claims` does it."""
        spool = process.spool
        spool.filling = True
        said = await spool.held() if spool.size else None
        if said is not None:
            spool.announce(LENGTH)
            await spool.take_over(lambda _: None)
        elif spool.size:
            await self._fail(process)
        else:
            spool.announce(LENGTH)
            spool.describe(FACTS, HEAD)

    # -- who fills ---

    @precondition(lambda self: self.fillers())
    @rule(size=st.integers(1, 15))
    def write(self, size: int) -> None:
        for process in self.fillers():
            written = process.spool.mark.written
            chunk = DATA[written : written + size]
            if chunk:
                self.run(process.spool.append(chunk))

    @precondition(lambda self: self.fillers())
    @rule()
    def verify(self) -> None:
        for process in self.fillers():
            if process.spool.mark.written == LENGTH:
                assert self.run(process.spool.digest()).digest() == hashlib.sha256(DATA).digest()
                self.verified.add(os.fstat(process.spool.fd).st_ino)
                process.spool.verify()

    @precondition(lambda self: self.fillers())
    @rule()
    def fail(self) -> None:
        for process in self.fillers():
            self.run(self._fail(process))

    @staticmethod
    async def _fail(process: Process) -> None:
        await process.spool.remove()
        process.spool.let_go()
        process.spool.fail(SourceUnavailable())

    @precondition(lambda self: self.fillers())
    @rule()
    def run_out_of_room(self) -> None:
        for process in self.fillers():
            process.spool.give_up()
            self.run(self._fail(process))

    @precondition(lambda self: self.fillers())
    @rule()
    def lose_the_name(self) -> None:
        """The id was pointed elsewhere; those who watch are filled for to the end."""
        for process in self.fillers():
            self.run(process.spool.remove())

    # -- any process ---

    @rule(number=st.integers(0, 3))
    def stop(self, number: int) -> None:
        process = self.processes.get(number)
        if process is not None and not process.ended:
            process.spool.let_go()
            process.spool.fail(SourceUnavailable())

    @rule(number=st.integers(0, 3))
    def die(self, number: int) -> None:
        process = self.processes.pop(number, None)
        if process is not None:
            os.close(process.spool.fd)

    @rule(number=st.integers(0, 3))
    def look(self, number: int) -> None:
        process = self.processes.get(number)
        if process is not None and not process.ended and not process.spool.filling:
            self.run(self._look(process))

    async def _look(self, process: Process) -> None:
        step = await self.followers.look(process.flight, SOURCE, process.spool)
        if step is Step.GO_ON:
            await self._go_on(process)
        elif step in {Step.GONE, Step.NO_ROOM}:
            process.spool.fail(SourceUnavailable())
        elif step is Step.WHOLE:
            assert process.spool.mark.verified

    # -- what always holds ---

    @invariant()
    def what_can_be_read_is_the_clips(self) -> None:
        for process in self.processes.values():
            readable = process.spool.mark.readable
            assert os.pread(process.spool.fd, readable, 0) == DATA[:readable]
            if readable == LENGTH:
                assert os.fstat(process.spool.fd).st_ino in self.verified

    @invariant()
    def one_process_at_most_fills_a_file(self) -> None:
        files = [os.fstat(process.spool.fd).st_ino for process in self.fillers()]
        assert len(files) == len(set(files))

    def teardown(self) -> None:
        try:
            self._nobody_waits_for_nobody()
        finally:
            for process in self.processes.values():
                os.close(process.spool.fd)
            self.loop.close()
            self.executor.shutdown()
            shutil.rmtree(self.folder)

    def _nobody_waits_for_nobody(self) -> None:
        """When all who fill have ended, each who follows either goes on or hears of the end."""
        for number, process in list(self.processes.items()):
            if process.spool.filling:
                self.die(number)
        while waiting := self.readers():
            self.run(self._look(waiting[0]))
            first = waiting[0]
            assert first.ended or first.spool.filling
            if first.spool.filling:
                os.close(first.spool.fd)
                self.processes = {n: p for n, p in self.processes.items() if p is not first}


TestFollowing = Following.TestCase
