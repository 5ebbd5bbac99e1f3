"""What a worker process is told when it is started.

Belongs here: which seat and which open sockets it has, and how that is written on its command
line. Must not know: who starts it, or what it does with them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from proxy.records import Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """File descriptors that the new process inherits, and its place among the others.

    `public` has the listening sockets of every place on the public address, `place` says which of
    them are its own: it accepts from the others only when it is told to. `admin` is shared by all.
    """

    number: int
    of: int
    place: int
    channel: int
    public: tuple[tuple[int, ...], ...]
    admin: tuple[int, ...]

    @property
    def seat(self) -> Seat:
        """Which of the processes it is."""
        return Seat(self.number, self.of)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that has to stay open in the new process."""
        listening = [number for place in self.public for number in place]
        return (self.channel, *listening, *self.admin)

    def written(self) -> str:
        """One argument of a command line; `read` undoes it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def read(cls, argument: str) -> Orders:
        """Read what `written` wrote."""
        found = orjson.loads(argument)
        public = tuple(tuple(place) for place in found.pop("public"))
        return cls(public=public, admin=tuple(found.pop("admin")), **found)
