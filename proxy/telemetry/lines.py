"""Lines on their way out: a thread that writes them, so that nobody waits for who reads them.

Belongs here: the bounded queue, whole lines in every write, and what is lost when nobody reads.
Must not know: what a line says.

Whoever logs only puts a line into the queue. A pipe that nobody reads, a full disk or a stopped
terminal hold up the thread, never the event loop; what does not fit into the queue is counted.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Final

_MOST: Final = 4096
"""Lines that wait at most: a second of a busy process, and a few MiB."""
_ATOMIC: Final = 4096
"""Bytes of one write: up to so many a pipe takes whole, so that lines of several processes stay
whole too (PIPE_BUF, pipe(7))."""


class Lines:
    """Writes lines to a descriptor that stays the caller's."""

    def __init__(self, descriptor: int, *, most: int = _MOST) -> None:
        """Start the thread."""
        self._descriptor = descriptor
        self._most = most
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lost = 0
        self._closed = False
        self.on_loss: Callable[[int], None] = _nobody_asked
        """Told, in the thread, how many lines were lost, as soon as lines are written again."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have a line written, soon; without its line feed. Never waits."""
        if self._closed and not self._thread.is_alive():
            self._write(line + b"\n")  # what is said after the end is rare, and nobody waits
        elif self._queue.qsize() < self._most:
            self._queue.put(line + b"\n")
        else:
            with self._lock:
                self._lost += 1

    def close(self, patience: float = 1.0) -> bool:
        """Write what is left, for `patience` seconds at most; returns whether all was written."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            return False
        with contextlib.suppress(queue.Empty):  # what came after the end of the queue
            while True:
                self._write(self._queue.get_nowait() or b"")
        return True

    def _run(self) -> None:
        line = self._queue.get()
        while line is not None:
            whole, line = self._gather(line)
            if self._write(whole):
                self._tell_losses()
            if line == b"":
                line = self._queue.get()

    def _gather(self, line: bytes) -> tuple[bytes, bytes | None]:
        """Join lines that wait already, and return them with what came next: b"" for nothing."""
        lines, size = [line], len(line)
        following: bytes | None = b""
        with contextlib.suppress(queue.Empty):
            while True:
                following = self._queue.get_nowait()
                if following is None or size + len(following) > _ATOMIC:
                    break
                lines.append(following)
                size += len(following)
                following = b""
        return b"".join(lines), following

    def _write(self, data: bytes) -> bool:
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # somebody else has made it so
                    select.select([], [self._descriptor], [], 1.0)
        except OSError:  # nobody will read it any more
            with self._lock:
                self._lost += data.count(b"\n")
            return False
        return True

    def _tell_losses(self) -> None:
        if self._lost and self._queue.qsize() < self._most // 2:
            with self._lock:
                lost, self._lost = self._lost, 0
            self.on_loss(lost)


def _nobody_asked(_count: int) -> None:
    """Until somebody wants to hear."""
