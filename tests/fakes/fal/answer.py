"""What the fake sends for a request: status, fields and which bytes.

Belongs here: turning a clip and a Behaviour into an answer's head. Must not know: sockets, time.
"""

import base64
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from tests.fakes.fal.behaviour import Behaviour
from tests.fakes.fal.media import Clip

Data = bytes | Clip
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A head as it goes over the wire, and bytes `start` up to `stop` of `data` after it."""

    status: int
    head: bytes
    data: Data
    start: int
    stop: int

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return some of the body; positions count from the body's first byte."""
        start, stop = self.start + start, min(self.start + stop, self.stop)
        if isinstance(self.data, Clip):
            return self.data.read(start, stop)
        return memoryview(self.data)[start:stop]


def make_answer(data: Data | None, how: Behaviour, headers: dict[str, str]) -> Answer:
    """Make the answer to a request with these header fields (lower case) for `data`.

    None for `data` is a path that nothing was registered for.
    """
    if how.location is not None:
        return _page(how.status or 302, how, {"Location": how.location}, b"moved")
    if how.status is not None and how.status not in {200, 206}:
        return _page(how.status, how, {}, how.body or b"<html>no</html>")
    if data is None:
        return _page(404, how, {}, b"<html>no such clip</html>")
    if how.body is not None:
        data = how.body
    if how.gzip:
        data = gzip.compress(bytes(_whole(data)))
    return _clip(data, how, headers)


def _clip(data: Data, how: Behaviour, headers: dict[str, str]) -> Answer:
    fields = _describe(data, how)
    asked = _asked(headers, len(data), fields.get("ETag"))
    start, stop, status = 0, len(data), how.status or 200
    if asked is not None and how.ranges != "ignore":
        if asked[0] >= asked[1]:
            return _page(416, how, {"Content-Range": f"bytes */{len(data)}"}, b"")
        start, stop, status = *asked, 206
        fields |= _place(start, stop, len(data), how)
    if how.ranges == "wrong-start" and status == 206:
        start, stop = start + 1, min(stop + 1, len(data))
    if how.framing == "length":
        fields["Content-Length"] = str(stop - start + how.length_lie)
    elif how.framing.startswith("chunked"):
        fields["Transfer-Encoding"] = "chunked"
    else:
        fields["Connection"] = "close"
    return Answer(status, _head(status, fields, how), data, start, stop)


def _asked(headers: dict[str, str], size: int, etag: str | None) -> tuple[int, int] | None:
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    return int(first), min(size, int(last) + 1) if last else size


def _place(start: int, stop: int, size: int, how: Behaviour) -> dict[str, str]:
    right = f"bytes {start}-{stop - 1}/{size}"
    wrong = {
        "wrong-start": f"bytes {start + 1}-{min(stop + 1, size) - 1}/{size}",
        "wrong-total": f"bytes {start}-{stop - 1}/{size + 1000}",
        "garbage": "bytes a lot of them/42",
    }
    if how.ranges == "multipart":
        return {"Content-Type": "multipart/byteranges; boundary=x"}
    return {} if how.ranges == "missing" else {"Content-Range": wrong.get(how.ranges, right)}


def _describe(data: Data, how: Behaviour) -> dict[str, str]:
    fields = {"Accept-Ranges": "none" if how.ranges == "ignore" else "bytes"}
    if how.content_type is not None:
        fields["Content-Type"] = how.content_type
    if how.etag in {"strong", "weak"}:
        fields["ETag"] = f'{"W/" if how.etag == "weak" else ""}"{_tag(data)}"'
    elif how.etag != "none":
        fields["ETag"] = how.etag
    if how.last_modified is not None:
        fields["Last-Modified"] = how.last_modified
    if how.md5 != "none":
        digest = _md5(data) if how.md5 == "right" else bytes(16)
        fields["x-goog-hash"] = f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}"
        fields["Content-MD5"] = base64.b64encode(digest).decode()
    if how.gzip:
        fields["Content-Encoding"] = "gzip"
    return fields


def _page(status: int, how: Behaviour, extra: dict[str, str], body: bytes) -> Answer:
    fields = {"Content-Type": "text/html", "Content-Length": str(len(body)), **extra}
    return Answer(status, _head(status, fields, how), body, 0, len(body))


def _head(status: int, fields: dict[str, str], how: Behaviour) -> bytes:
    if how.raw_head is not None:
        return how.raw_head
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Whatever"
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in {**fields, **how.headers}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _tag(data: Data) -> str:
    if isinstance(data, Clip):
        return f"clip-{data.seed}-{data.size}"
    return _sha(data)


@lru_cache(64)
def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _md5(data: Data) -> bytes:
    return hashlib.md5(_whole(data), usedforsecurity=False).digest()


def _whole(data: Data) -> bytes:
    return data.read(0, len(data)) if isinstance(data, Clip) else data
