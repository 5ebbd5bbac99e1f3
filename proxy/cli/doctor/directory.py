"""A directory as the bucket: writing, the condition, reading, removing, with a small object.

Belongs here: the order of calls, and what their failures mean. Must not know: how a directory is a
bucket.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from proxy.cli.doctor.data_dir import nearest, obstacle
from proxy.cli.doctor.finding import Notes, Verdict, failure, fine, unchecked, warning
from proxy.cli.doctor.running import apart
from proxy.errors import BucketError, ObjectConflict
from proxy.records import CLIP_CONTENT_TYPE
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, NewObject
from proxy.storage.durable import write_synced
from proxy.storage.opening import open_bucket

_BYTES: Final = 4096
_START, _STOP = 1000, 3000


@dataclass(frozen=True, slots=True)
class DirectoryCheck:
    """See `Check`; `url` is a file: URL."""

    settings: Settings
    url: str
    area: str = "bucket"

    async def run(self, notes: Notes) -> None:
        """Try everything, unless there is no bucket yet; what was written is removed."""
        root = Path(unquote(urlsplit(self.url).path))
        notes.trying("open")
        place = await apart(lambda: nearest(root))
        if place != root:
            may = await apart(
                lambda: obstacle(root, place) is None and os.access(place, os.W_OK | os.X_OK)
            )
            seen = f"{root} is not there yet"
            mend = "let the user that runs firstview write there, or set FIRSTVIEW_BUCKET_URL"
            made = fine(f"{seen}: `firstview serve` makes it")
            notes.add(
                "open", made if may else failure(f"{seen}, and {place} is closed to us", mend)
            )
            notes.add("the rest", unchecked("write, conditional write, look, range, remove"))
            return
        notes.add("kind", await apart(lambda: _judge_disk(place, self.settings.data_dir)))
        folder = keys.doctor_dir(root, secrets.token_hex(8))
        try:
            await self._try(notes, folder)
        except (BucketError, OSError) as error:
            mend = f"let the user that runs firstview (here {os.geteuid()}) write there"
            notes.add(notes.step, failure(f"{error}", f"{mend}, or set FIRSTVIEW_BUCKET_URL"))
            notes.add("the rest", unchecked("the bucket cannot be used"))
        finally:
            await apart(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _try(self, notes: Notes, folder: Path) -> None:
        bucket = await open_bucket(self.url, self.settings)
        key = keys.doctor_key(secrets.token_hex(8))
        try:
            await bucket.check()
            notes.add("open", fine(bucket.name))
            await self._calls(notes, bucket, key, folder)
        finally:
            await bucket.close()

    async def _calls(self, notes: Notes, bucket: Bucket, key: str, folder: Path) -> None:
        body = secrets.token_bytes(_BYTES)
        path = folder / "clip"
        await apart(lambda: _make(path, body))
        notes.trying("write")
        try:
            await bucket.upload(_new(key, body), path).commit(hashlib.sha256(body).hexdigest())
            notes.add("write", fine(f"{len(body)} bytes"))
            notes.trying("conditional write")
            notes.add("conditional write", await _write_again(bucket, key, folder))
            notes.trying("look")
            info = await bucket.head(key)
            is_right = info is not None and info.size == len(body)
            notes.add("look", fine("size is right") if is_right else _odd("another size"))
            notes.trying("range")
            notes.add("range", await _read(bucket, key, body))
        finally:
            notes.trying("remove")
            await bucket.delete(key)
            await apart(lambda: _tidy(Path(unquote(urlsplit(self.url).path)), key))
        notes.add("remove", fine("nothing is left behind"))


def _new(key: str, body: bytes) -> NewObject:
    return NewObject(key=key, size=len(body), content_type=CLIP_CONTENT_TYPE, metadata={})


def _make(path: Path, body: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    write_synced(path, body)


def _tidy(root: Path, key: str) -> None:
    """Remove the folders that were made for our key, unless somebody else uses them."""
    for place in (keys.object_path(root, key), keys.object_meta_path(root, key)):
        with contextlib.suppress(OSError):
            for folder in place.parents[:2]:
                folder.rmdir()


async def _write_again(bucket: Bucket, key: str, folder: Path) -> Verdict:
    other = secrets.token_bytes(_BYTES)
    path = folder / "other"
    await apart(lambda: _make(path, other))
    try:
        await bucket.upload(_new(key, other), path).commit(hashlib.sha256(other).hexdigest())
    except ObjectConflict:
        return fine("a second write is refused")
    return _odd("a second write replaced the first")


async def _read(bucket: Bucket, key: str, body: bytes) -> Verdict:
    stream = await bucket.open(key, _START, _STOP)
    found = b""
    try:
        while chunk := await stream.read():
            found += chunk
    finally:
        await stream.close()
    if found != body[_START:_STOP]:
        return _odd("other bytes came than were written")
    return fine(f"bytes {_START} to {_STOP - 1}, as they were written")


def _odd(seen: str) -> Verdict:
    return failure(seen, "check the disk; this should not be possible on a local file system")


def _judge_disk(root: Path, data_dir: Path) -> Verdict:
    try:
        same = root.stat().st_dev == data_dir.stat().st_dev
    except OSError:
        return fine("a directory")
    if same:
        return fine("a directory, on the disk of FIRSTVIEW_DATA_DIR: clips are linked, not copied")
    return warning(
        "a directory on another disk than FIRSTVIEW_DATA_DIR: every clip is copied",
        "nothing has to be done; or put both on one disk",
    )
