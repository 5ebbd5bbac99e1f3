"""Any interleaving of a filler and its viewers on the spool, against the true bytes.

Whatever happens, in whatever order: a viewer only ever sees a prefix of the clip, never its last
byte before the whole clip is verified, everyone's waiting ends, and no descriptor stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.delivery.spool import Spool
from proxy.errors import (
    CorruptClip,
    DiskExhausted,
    FirstviewError,
    SourceChanged,
    SourceTimeout,
    SourceUnavailable,
)

T = TypeVar("T")

ERRORS = (CorruptClip, DiskExhausted, SourceChanged, SourceTimeout, SourceUnavailable)


@dataclass
class Reader:
    """One viewer: what it has read so far, from where."""

    start: int
    got: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[None] = field(init=False)
    left: bool = False


class Spooling(RuleBasedStateMachine):
    """A filler that does anything, viewers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.executor = ThreadPoolExecutor(1)
        self.folder = Path(tempfile.mkdtemp())
        self.readers: list[Reader] = []

    @initialize(data=st.binary(min_size=1, max_size=60))
    def begin(self, data: bytes) -> None:
        self.data = data
        path = self.folder / "clip.part"
        self.spool = self.run(Spool.claim(path, self.executor))
        self.inode = os.fstat(self.spool.fd).st_ino

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run to the end, which has to come soon."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def settle(self) -> None:
        """Let everybody go as far as they can."""

        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.run(turns())

    @property
    def written(self) -> int:
        return self.spool.mark.written

    # -- the filler ---

    @rule()
    def announce(self) -> None:
        if self.spool.mark.length is None and self.written > len(self.data):
            with pytest.raises(CorruptClip):
                self.spool.announce(len(self.data))
        else:
            self.spool.announce(len(self.data))

    @rule(wrong=st.integers(-3, 3).filter(bool))
    def announce_something_else(self, wrong: int) -> None:
        if self.spool.mark.length is not None:
            with pytest.raises(CorruptClip):
                self.spool.announce(len(self.data) + wrong)

    @precondition(lambda self: not self.spool.mark.ended)
    @rule(size=st.integers(1, 25))
    def write(self, size: int) -> None:
        chunk = self.data[self.written : self.written + size]
        if chunk:
            self.run(self.spool.append(chunk))

    @precondition(lambda self: not self.spool.mark.ended)
    @rule(size=st.integers(1, 25))
    def write_and_be_told_to_stop(self, size: int) -> None:
        chunk = self.data[self.written : self.written + size]
        if not chunk:
            return

        async def stopped() -> None:
            writing = asyncio.ensure_future(self.spool.append(chunk))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

        self.run(stopped())
        self.spool.fail(SourceUnavailable("told to stop"))

    @precondition(lambda self: self.spool.mark.length is not None and not self.spool.mark.ended)
    @rule()
    def write_too_much(self) -> None:
        rest = self.data[self.written :] + b"more"
        with pytest.raises(CorruptClip) as caught:
            self.run(self.spool.append(rest))
        self.spool.fail(caught.value)

    @precondition(lambda self: self.spool.mark.ended)
    @rule()
    def write_after_the_end(self) -> None:
        before = self.spool.mark.readable
        with pytest.raises(CorruptClip):
            self.run(self.spool.append(b"late"))
        assert self.spool.mark.readable == before

    @rule()
    def verify(self) -> None:
        mark = self.spool.mark
        if mark.length == self.written and mark.failure is None:
            self.spool.verify()
        else:
            with pytest.raises(CorruptClip):
                self.spool.verify()

    @rule(error=st.sampled_from(ERRORS))
    def fail(self, error: type[FirstviewError]) -> None:
        self.spool.fail(error())

    # -- the viewers ---

    @rule(start=st.integers(0, 59))
    def join(self, start: int) -> None:
        start = min(start, len(self.data) - 1)
        reader = Reader(start)
        reader.task = self.loop.create_task(self._read(reader))
        self.readers.append(reader)

    async def _read(self, reader: Reader) -> None:
        position = reader.start
        self.spool.acquire()
        try:
            while position < len(self.data):
                readable = await self.spool.past(position)
                assert position < readable <= len(self.data)
                if readable == len(self.data):
                    assert self.spool.mark.verified
                reader.got += os.pread(self.spool.fd, readable - position, position)
                position = readable
                await asyncio.sleep(0)
        finally:
            self.spool.release()

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        reader.left = True
        reader.task.cancel()

    @rule()
    def wait(self) -> None:
        self.settle()

    # -- what always holds ---

    @invariant()
    def every_viewer_has_true_bytes_only(self) -> None:
        for reader in self.readers:
            have = bytes(reader.got)
            assert have == self.data[reader.start : reader.start + len(have)]
            if reader.start + len(have) == len(self.data) and have:
                assert self.spool.mark.verified

    @invariant()
    def the_last_byte_is_withheld_until_the_clip_is_verified(self) -> None:
        if not hasattr(self, "spool"):
            return
        mark = self.spool.mark
        assert mark.readable <= mark.written or mark.verified
        if not mark.verified:
            assert mark.readable < len(self.data)
        if isinstance(mark.failure, CorruptClip):
            assert mark.readable == 0

    @invariant()
    def the_digest_is_that_of_the_bytes_on_the_disk(self) -> None:
        if not hasattr(self, "spool") or self.spool.mark.ended:
            return
        held = os.pread(self.spool.fd, self.written, 0)
        assert held == self.data[: self.written]
        assert self.run(self.spool.digest()).digest() == hashlib.sha256(held).digest()

    def teardown(self) -> None:
        try:
            if hasattr(self, "spool"):
                self._end()
        finally:
            self.loop.close()
            self.executor.shutdown()
            shutil.rmtree(self.folder)

    def _end(self) -> None:
        self.spool.fail(SourceUnavailable())

        async def everyone_ends() -> None:
            tasks = [reader.task for reader in self.readers]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for reader, result in zip(self.readers, results, strict=True):
                self._check_end(reader, result)
            await self.spool.ended()
            await self.spool.remove()

        self.run(everyone_ends())
        assert list(self.folder.iterdir()) == []
        fd = self.spool.fd
        self.spool.release()
        with contextlib.suppress(OSError):
            assert os.fstat(fd).st_ino != self.inode, "the descriptor is still open"

    def _check_end(self, reader: Reader, result: BaseException | None) -> None:
        whole = reader.start + len(reader.got) == len(self.data)
        if result is None:
            assert whole
            assert self.spool.mark.verified
        elif isinstance(result, asyncio.CancelledError):
            assert reader.left
        else:
            assert result is self.spool.mark.failure
            assert not whole


TestSpooling = Spooling.TestCase
