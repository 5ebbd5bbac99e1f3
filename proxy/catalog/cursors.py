"""Where a page of a listing ended, as one opaque word that a client hands back.

Belongs here: writing and reading that word. Must not know: any query.
"""

from __future__ import annotations

from datetime import datetime

from proxy.catalog.tables import from_microseconds, to_microseconds
from proxy.errors import BadRequest
from proxy.records import REQUEST_ID

_MAX_DIGITS = 18


def write(created_at: datetime, request_id: str) -> str:
    """Name the row that a page ended with; needs no quoting in a URL."""
    return f"{to_microseconds(created_at)}.{request_id}"


def read(cursor: str) -> tuple[datetime, str]:
    """Return the row's creation time and id; raises BadRequest for anything not written above."""
    moment, _, request_id = cursor.partition(".")
    digits = moment.removeprefix("-")
    known = digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS
    if not known or REQUEST_ID.fullmatch(request_id) is None:
        raise BadRequest("This is not a place in a listing: pass on what an earlier page returned")
    try:
        return from_microseconds(int(moment)), request_id
    except OverflowError as error:
        raise BadRequest("This place in a listing lies outside of time") from error
