"""Kept clips: whole, verified spool files that are not stored yet, pinned until they are.

Belongs here: what is known of one, and what is said of it beside its file. Must not know: when they
are tried again, or how they are found again.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from proxy.delivery.account import Account
from proxy.delivery.leftovers import FoundClip
from proxy.errors import FirstviewError
from proxy.records import BodyHead, ClipFacts
from proxy.storage import keys, spool_file
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import Reservation
from proxy.storage.facts_file import Growth, write_facts
from proxy.storage.open_files import OpenFile


@dataclass(slots=True, kw_only=True)
class Kept:
    """One clip between verified and stored. `due` is on the monotonic clock, in seconds.

    `busy` while something is being done with it; `superseded` once its id means another clip.
    """

    facts: ClipFacts
    sha256: str | None
    fal_url: str
    prompt_hash: str | None
    path: Path
    reservation: Reservation
    file: OpenFile
    head: BodyHead | None = None
    """What its source said, for who follows the file; None of what an earlier process left."""
    upload: Upload | None = None
    committed: bool = False
    superseded: bool = False
    busy: bool = False
    discarded: bool = False
    since: float = field(default_factory=time.monotonic)
    """When it was verified, on the monotonic clock too."""
    tries: int = 0
    due: float = 0.0
    failure: FirstviewError | None = None
    account: Account | None = None
    """What is to be told of the fill that brought it, until it has been."""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an attempt to store it has ended; `failure` is what the last one failed with."""

    @classmethod
    def from_disk(cls, found: FoundClip, reservation: Reservation) -> Kept:
        """Take up what was found in the spool, its descriptor and its lock too."""
        return cls(
            facts=found.facts,
            sha256=found.sha256,
            fal_url=found.fal_url,
            prompt_hash=found.prompt_hash,
            path=found.path,
            reservation=reservation,
            file=OpenFile(found.fd, found.facts, "disk"),
            since=time.monotonic() - max(0.0, time.time() - os.fstat(found.fd).st_mtime),
            tries=1,  # it is on the disk already, and its id may mean another clip by now
        )

    def write(self, *, durable: bool) -> None:
        """Say beside the file what it is; `durable`: both survive a loss of power. Blocks."""
        if durable:
            os.fsync(self.file.fd)
        write_facts(
            keys.spool_facts_path(self.path),
            self.facts,
            sha256=self.sha256,
            fal_url=self.fal_url,
            prompt_hash=self.prompt_hash,
            growth=self._growth(),
            durable=durable,
        )

    def _growth(self) -> Growth | None:
        if self.head is None:
            return None
        inode = spool_file.inode(self.file.fd)
        return Growth(inode=inode, boot=spool_file.boot_id(), head=self.head)

    def delete(self) -> None:
        """Remove the file and what is said beside it, unless it has moved on. Blocks."""
        spool_file.remove(self.file.fd, self.path)
