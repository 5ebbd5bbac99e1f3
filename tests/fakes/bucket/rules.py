"""What R2 refuses and the S3 test servers let pass.

Belongs here: the rules of developers.cloudflare.com/r2 that are stricter than S3's. Must not
know: sockets, the backend.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping

MIN_PART = 5 * 1024 * 1024
WRITES = {"PutObject", "CompleteMultipartUpload"}
_PART_NUMBER = re.compile(rb"<PartNumber>\s*(\d+)\s*</PartNumber>")

Refusal = tuple[int, str]
"""Status and code."""


class R2Rules:
    """R2's memory of one bucket's uploads and writes."""

    def __init__(self) -> None:
        """Nothing has been written."""
        self.between = 1.0
        """Seconds that have to pass between two writes to one key; a test may set its own."""
        self._last_write: dict[str, float] = {}
        self._parts: dict[str, dict[int, int]] = defaultdict(dict)

    def refuse(
        self, operation: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Refusal | None:
        """Judge a request by its head."""
        names = {name.lower(): value for name, value in headers.items()}
        if operation in {"PutObject", "UploadPart"} and "content-length" not in names:
            return 411, "MissingContentLength"
        if "TRAILER" in names.get("x-amz-content-sha256", ""):
            return 501, "NotImplemented"
        if operation == "UploadPart":
            algorithm = names.get("x-amz-sdk-checksum-algorithm", "").lower()
            if algorithm.startswith("sha") or any(
                n.startswith("x-amz-checksum-sha") for n in names
            ):
                return 501, "NotImplemented"
            self._parts[query["uploadId"]][int(query["partNumber"])] = int(names["content-length"])
        if operation == "CompleteMultipartUpload" and {"if-none-match", "if-match"} & set(names):
            return 501, "NotImplemented"  # documented for PutObject only
        return self._too_soon(key) if operation in WRITES else None

    def refuse_parts(self, upload_id: str, body: bytes) -> Refusal | None:
        """Judge the list of parts of a CompleteMultipartUpload."""
        numbers = sorted(int(number) for number in _PART_NUMBER.findall(body))
        sizes = [self._parts[upload_id].get(number, 0) for number in numbers]
        if len(set(sizes[:-1])) > 1 or (len(sizes) > 1 and sizes[-1] > sizes[0]):
            return 400, "InvalidPart"
        if any(size < MIN_PART for size in sizes[:-1]):
            return 400, "EntityTooSmall"
        return None

    def _too_soon(self, key: str) -> Refusal | None:
        now = time.monotonic()
        if now - self._last_write.get(key, -math.inf) < self.between:
            return 429, "TooManyRequests"
        self._last_write[key] = now
        return None
