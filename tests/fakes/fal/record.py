"""What the fake remembers of a request.

Belongs here: facts that a test asserts on. Must not know: how they came about.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """One request and what became of its answer. Times are `time.monotonic()`.

    `sent` counts body bytes given to the kernel. `finished` means that the whole script was
    played, `aborted` that the client left before.
    """

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    received_at: float
    status: int | None = None
    sent: int = 0
    first_byte_at: float | None = None
    last_byte_at: float | None = None
    finished: bool = False
    aborted: bool = False
    connection: int = field(default=0)
    """Number of the connection that it came over."""

    @property
    def range(self) -> str | None:
        """The `Range` field."""
        return self.headers.get("range")
