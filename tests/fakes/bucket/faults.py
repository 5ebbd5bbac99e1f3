"""What can go wrong with one request, as a test writes it down.

Belongs here: faults and which requests they meet. Must not know: sockets, the backend.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Fault:
    """Something that happens to the next `times` requests of one operation.

    Sizes are bytes of a body, times are seconds. Without any of the fields below `skip` the
    request simply passes.
    """

    operation: str = "*"
    """S3's own name, such as PutObject; `*` for any."""
    key: str | None = None
    times: int = 1
    skip: int = 0
    """Requests that pass before the first is hit."""
    status: int | None = None
    """Answer this without asking the backend."""
    code: str = ""
    """S3's error code; the usual one of the status if empty."""
    delay: float = 0.0
    """Wait this long before anything is done."""
    rate: float | None = None
    """Let the body pass at this many bytes a second, in either direction; may change meanwhile."""
    reset_request_at: int | None = None
    """Read so much of the request's body, then reset the connection."""
    stall_request_at: int | None = None
    """Read so much of the request's body, then read no more and say nothing."""
    reset_reply_at: int | None = None
    """Send so much of the reply's body, then reset the connection."""
    cut_reply_at: int | None = None
    """Send so much of the reply's body, then close the connection as if all were well."""
    stall_reply_at: int | None = None
    """Send so much of the reply's body, then no more."""
    lose_reply: bool = False
    """Let the backend do it all, then reset the connection instead of answering."""
    answer_whole: bytes | None = None
    """Answer 200 and these bytes, whatever range was asked for."""
    hits: int = field(default=0, init=False)
    """Requests that it has hit; for assertions."""

    def meets(self, operation: str, key: str) -> bool:
        """Whether this request is hit; counts it."""
        if self.operation not in {"*", operation} or self.key not in {None, key}:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.hits >= self.times:
            return False
        self.hits += 1
        return True


NO_FAULT = Fault(times=0)


def find(faults: Iterable[Fault], operation: str, key: str) -> Fault:
    """Find the first fault that meets a request; one that does nothing if there is none."""
    return next((fault for fault in faults if fault.meets(operation, key)), NO_FAULT)
