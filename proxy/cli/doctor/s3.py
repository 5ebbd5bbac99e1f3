"""An S3 bucket: every call that serving makes, with a small object that is removed again.

Belongs here: the order of calls, and what is left unchecked once one fails. Must not know: how a
call is made (`storage/s3_probe.py`), or what an answer means (`s3_words.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from proxy.cli.doctor.clocks import judge_date
from proxy.cli.doctor.finding import Mark, Notes, Verdict, failure, fine, unchecked, warning
from proxy.cli.doctor.s3_words import (
    judge_complete,
    judge_head,
    judge_lifecycle,
    judge_range,
    judge_refusal,
    judge_second_put,
    judge_silence,
)
from proxy.clock import Clock
from proxy.errors import BucketError, SettingsError
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.s3_calls import conditional_complete
from proxy.storage.s3_probe import Reply, S3Probe, keys_of, open_probe

_BYTES: Final = 4096
_START, _STOP = 1000, 3000
_OLD: Final = timedelta(hours=1)
"""Age at which what another doctor wrote is nobody's any more."""


@dataclass(frozen=True, slots=True)
class S3Check:
    """See `Check`."""

    settings: Settings
    bucket: str
    clock: Clock
    pause: float = 1.1
    """Seconds before a key is written to again by whom that was too soon: R2 wants one a second."""
    area: str = "bucket"

    async def run(self, notes: Notes) -> None:
        """Try everything; whatever happens, what was written is removed."""
        notes.trying("client")
        try:
            async with open_probe(self.bucket, self.settings) as probe:
                trial = Trial(self, probe, notes)
                try:
                    await trial.run()
                except BucketError as error:
                    step = notes.step
                    notes.add(step, judge_silence(error, probe.endpoint))
                    notes.add("the rest", unchecked("the store does not answer"))
                finally:
                    await trial.clean_up()
        except BucketError as error:
            notes.add("client", judge_silence(error, ""))
        except SettingsError as error:
            notes.add("client", failure(error.detail, "correct AWS_CA_BUNDLE, or unset it"))


@dataclass(slots=True)
class Trial:
    """One round of calls."""

    check: S3Check
    probe: S3Probe
    notes: Notes
    key: str = field(default_factory=lambda: keys.doctor_key(secrets.token_hex(8)))
    body: bytes = field(default_factory=lambda: secrets.token_bytes(_BYTES))
    written: bool = False
    upload: str | None = None

    async def run(self) -> None:
        """Make the calls, each of which needs those before it."""
        if not await self._reach():
            rest = "write, conditional write, look, range, link, upload in parts, remove"
            self._add("the rest", unchecked(rest))
            return
        if await self._write():
            await self._read()
        else:
            self._add("read", unchecked("there is nothing to read"))
        await self._in_parts()
        self.notes.trying("lifecycle")
        reply = await self.probe.lifecycle()
        self._add("lifecycle", judge_lifecycle(reply, self.probe.endpoint))

    async def _reach(self) -> bool:
        self.notes.trying("list")
        reply = await self.probe.list()
        if "date" in reply.headers:
            now = self.check.clock.now()
            self._add("clock", judge_date(reply.headers["date"], now, "the store"))
        seen = f"s3://{self.check.bucket} at {self.probe.endpoint}, region {self.probe.region}"
        reached = self._done("list", reply, "s3:ListBucket", fine(seen))
        # A store may forbid just this: writing is then tried all the same.
        return reached or (reply.status == 403 and reply.code in {"AccessDenied", ""})  # noqa: PLR2004

    async def _write(self) -> bool:
        self.notes.trying("write")
        metadata = {keys.META_SHA256: "doctor"}
        reply = await self.probe.put(self.key, self.body, metadata)
        self.written = reply.ok
        if not self._done("write", reply, "s3:PutObject", fine(f"{_BYTES} bytes")):
            return False
        self.notes.trying("conditional write")
        reply = await self._patiently(lambda: self.probe.put(self.key, b"another", metadata))
        verdict = judge_second_put(reply) or self._refusal(reply, "s3:PutObject")
        self._add("conditional write", verdict)
        if reply.ok:  # it replaced the first
            self.body = b"another" + bytes(_BYTES)
            return False
        self.notes.trying("look")
        reply = await self.probe.head(self.key)
        self._done("look", reply, "s3:GetObject", judge_head(reply, self.body, metadata))
        return True

    async def _read(self) -> None:
        self.notes.trying("range")
        reply = await self.probe.read(self.key, _START, _STOP)
        self._done("range", reply, "s3:GetObject", judge_range(reply, self.body, _START, _STOP))
        self.notes.trying("link")
        reply = await self.probe.share(self.key)
        works = fine("a presigned URL works for anybody, for 15 minutes")
        if reply.status == 206 and reply.body != self.body[:1]:  # noqa: PLR2004
            works = failure("a presigned URL gives other bytes", "use another store")
        self._done("link", reply, "s3:GetObject", works)

    async def _in_parts(self) -> None:
        self.notes.trying("upload in parts")
        reply = await self.probe.begin(self.key)
        self.upload = reply.found.get("UploadId") if reply.ok else None
        if self.upload is None:
            self._add("upload in parts", self._refusal(reply, "s3:PutObject"))
            return
        steps = [
            ("send a part", "s3:PutObject", await self._part()),
            ("list parts", "s3:ListMultipartUploadParts", await self._parts()),
            (
                "list uploads",
                "s3:ListBucketMultipartUploads",
                await self.probe.uploads(keys.DOCTOR_PREFIX),
            ),
        ]
        wrong = [(name, right, reply) for name, right, reply in steps if not reply.ok]
        for name, right, reply in wrong:
            self._add(name, self._refusal(reply, right))
        if not wrong:
            await self._complete(steps[0][2].headers.get("etag", ""))
        await self._abort(whole=not wrong)

    async def _part(self) -> Reply:
        return await self.probe.send_part(self.key, self.upload or "", self.body[:_BYTES])

    async def _parts(self) -> Reply:
        return await self.probe.parts(self.key, self.upload or "")

    async def _complete(self, etag: str) -> None:
        """End the upload on the condition that the key is free, which it is not."""
        if not self.written:
            return
        self.notes.trying("conditional upload")
        upload = self.upload or ""
        reply = await self._patiently(lambda: self.probe.complete(self.key, upload, etag))
        asked = conditional_complete(self.probe.endpoint, self.check.settings)
        verdict = judge_complete(reply, asked=asked)
        self._add("conditional upload", verdict or self._refusal(reply, "s3:PutObject"))
        if reply.ok:
            self.upload = None

    async def _abort(self, *, whole: bool) -> None:
        if self.upload is None:
            return
        self.notes.trying("abort")
        reply = await self.probe.abort(self.key, self.upload)
        if reply.ok or reply.status == 404:  # noqa: PLR2004
            self.upload = None
            if whole:
                self._add("upload in parts", fine("begun, listed, and aborted"))
        else:
            self._add("abort", self._refusal(reply, "s3:AbortMultipartUpload"))

    async def clean_up(self) -> None:
        """Remove what was written, and what a doctor that was killed had left."""
        with contextlib.suppress(BucketError):
            if self.upload is not None:
                await self.probe.abort(self.key, self.upload)
            if not self.written:
                return
            self.notes.trying("remove")
            reply = await self.probe.delete(self.key)
            left = not reply.ok or (await self.probe.head(self.key)).ok
            if reply.ok and left:
                self._add("remove", failure("it is still there", "use another store"))
            else:
                self._done("remove", reply, "s3:DeleteObject", fine("nothing is left behind"))
            if left:
                mend = f"remove s3://{self.check.bucket}/{self.key} by hand"
                self._add("left behind", warning(f"{_BYTES} bytes", mend))
            now = self.check.clock.now()
            for key, at in keys_of(await self.probe.list(keys.DOCTOR_PREFIX, 1000)):
                if now - at > _OLD:
                    await self.probe.delete(key)

    async def _patiently(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Ask again, twice at most, where the store wants its peace."""
        for _ in range(2):
            reply = await ask()
            if reply.status not in {429, 503}:
                return reply
            await asyncio.sleep(self.check.pause)
        return await ask()

    def _done(self, step: str, reply: Reply, right: str, verdict: Verdict) -> bool:
        """Note the verdict if the request was done, else why it was refused."""
        mark = self._add(step, verdict if reply.ok else self._refusal(reply, right))
        return mark is not Mark.FAILS

    def _refusal(self, reply: Reply, right: str) -> Verdict:
        return judge_refusal(reply, right, self.check.bucket, self.probe.endpoint)

    def _add(self, step: str, verdict: Verdict) -> Mark:
        return self.notes.add(step, verdict)
