"""The servers of one comparison, and the fake fal.media behind all of them.

Belongs here: which take part, each in a directory of its own, and whose turn it is. Must not
know: scenarios, load, how each is set up.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import firstview, nginx, trafficserver, varnish
from bench.machine import Cores, version
from bench.results import OURS, PEER, Round, Sample
from bench.server import Server

_START = {"nginx": nginx.cache, "varnish": varnish.cache, "trafficserver": trafficserver.cache}
PEERS = tuple(_START)


@dataclass(frozen=True, slots=True)
class Field:
    """Everyone who takes part, over one upstream."""

    servers: dict[str, Server]
    upstream: Server
    home: Path
    absent: tuple[str, ...] = ()
    """Why a peer does not take part, a sentence each."""

    @property
    def ours(self) -> Server:
        """The server that all this is about."""
        return self.servers[OURS]

    @property
    def nginx(self) -> Server:
        """The peer that marks are set against."""
        return self.servers[PEER]

    def play(
        self, rounds: int, turn: Callable[[Server, int], Sample], *, warm_up: bool = True
    ) -> list[Round]:
        """Give each server its turn, so many rounds; each round begins with another one.

        To warm up, a round 0 comes first and is not measured.
        """
        names = list(self.servers)
        found = []
        for number in range(0 if warm_up else 1, rounds + 1):
            first = number % len(names)
            done = {
                name: turn(self.servers[name], number) for name in names[first:] + names[:first]
            }
            found.append({name: done[name] for name in names})
        return found[-rounds:]

    def asked(self, expected: int = 0) -> int:
        """How often the upstream was asked since the last call; it writes that down at the end.

        Waits a moment for the expected number.
        """
        log = self.home / "upstream" / "asked.log"
        deadline = time.monotonic() + 1
        while (count := len(log.read_bytes().splitlines())) < expected:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        os.truncate(log, 0)  # opened for appending: nginx goes on at the new end
        return count


@contextlib.contextmanager
def running(
    home: Path,
    cores: Cores,
    clips: Iterable[str],
    *,
    peers: Sequence[str] = PEERS,
    settings: dict[str, str] | None = None,
    workers: int = 1,
) -> Iterator[Field]:
    """Start the upstream over `home / "files"`, the peers that are installed, and firstview.

    `clips` are the ids that firstview's catalog knows. Everybody has that many workers.
    """
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            nginx.upstream(home / "upstream", home / "files", cores.upstream)
        )
        servers, absent = {}, []
        for name in peers:
            started = _peer(
                stack, name, _START[name](home / name, upstream.port, cores.server, workers)
            )
            if isinstance(started, Server):
                servers[name] = started
            else:
                absent.append(started)
                print(started, file=sys.stderr, flush=True)
        given = {} if workers == 1 else {"FIRSTVIEW_WORKERS": str(workers)}
        servers[OURS] = stack.enter_context(
            firstview.origin(
                home / OURS,
                upstream.port,
                cores.server,
                clips=clips,
                settings=given | (settings or {}),
            )
        )
        yield Field(servers, upstream, home, tuple(absent))


def _peer(
    stack: contextlib.ExitStack, name: str, peer: contextlib.AbstractContextManager[Server]
) -> Server | str:
    """The running peer, or why there is none. Without nginx nothing can be compared."""
    if not version(name):
        return f"not measured: {name} is not installed"
    try:
        return stack.enter_context(peer)
    except RuntimeError as error:
        if name == PEER:
            raise
        return f"not measured: {name} does not run here: {' '.join(str(error).split())[-200:]}"


@dataclass(frozen=True, slots=True)
class Alone:
    """firstview without a peer, its upstream, and the address of its catalog."""

    firstview: Server
    home: Path
    database: str
    source: str
    """Where its upstream has files; `/<kind>-<id>.mp4` is `files/<kind>.mp4`."""


@contextlib.contextmanager
def alone(home: Path, cores: Cores, settings: dict[str, str] | None = None) -> Iterator[Alone]:
    """Start firstview and its upstream, whose `home / "files"` may hold a key set as well."""
    place = home / OURS
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            nginx.upstream(home / "upstream", home / "files", cores.upstream)
        )
        base = f"http://127.0.0.1:{upstream.port}"
        given = {"FIRSTVIEW_FAL_JWKS_URL": f"{base}/jwks.json", **(settings or {})}
        ours = stack.enter_context(
            firstview.origin(place, upstream.port, cores.server, settings=given)
        )
        yield Alone(ours, home, firstview.database(place, given), f"{base}/files")
