"""What a request to the admin API says: its query, its JSON body, the id in its address.

Belongs here: reading them strictly, since what is misspelt must not be taken for "everything"; and
writing JSON. Must not know: what is done with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web

from proxy.catalog import said
from proxy.catalog.pages import MAX_PAGE
from proxy.errors import BadRequest, BodyTooLarge, InvalidRequestId
from proxy.records import REQUEST_ID
from proxy.settings import parse_duration

_ON_A_PAGE: Final = 100

Word = TypeVar("Word", bound=StrEnum)


class Query:
    """The parameters of a request, each at most once; an empty one is not said."""

    def __init__(self, request: web.Request, known: frozenset[str]) -> None:
        """Take those that are known; raises BadRequest that names every other one."""
        query = request.query
        wrong = [f"{name[:80]!r} is not a parameter" for name in sorted(set(query) - known)]
        wrong += [
            f"{name} stands there twice"
            for name in sorted(known)
            if len(query.getall(name, ())) > 1
        ]
        if wrong:
            raise BadRequest("; ".join(wrong))
        self._said = {name: value for name, value in query.items() if value}

    def text(self, name: str) -> str | None:
        """A parameter as it is."""
        return self._said.get(name)

    def word(self, name: str, words: type[Word]) -> Word | None:
        """A parameter that is one of some words."""
        return None if name not in self._said else _word(name, self._said[name], words)

    def moment(self, name: str) -> datetime | None:
        """A parameter that is a time."""
        try:
            return None if name not in self._said else said.moment(self._said[name])
        except ValueError as error:
            raise BadRequest(f"{name} {error}") from error

    def limit(self) -> int:
        """How many items a page is to hold."""
        text = self._said.get("limit", str(_ON_A_PAGE))
        number = int(text) if text.isascii() and text.isdigit() and len(text) < len("1000") else 0
        if not 0 < number <= MAX_PAGE:
            raise BadRequest(f"limit must be a whole number from 1 to {MAX_PAGE}")
        return number


def _word(name: str, value: object, words: type[Word]) -> Word:
    for word in words:
        if word == value:
            return word
    raise BadRequest(f"{name} must be one of {', '.join(words)}")


class Body:
    """The fields of a JSON object; a null is not said."""

    def __init__(self, data: bytes, known: frozenset[str]) -> None:
        """Read it; raises BadRequest for what is no such object, or has any other field."""
        body = said.json_object(data)
        if unknown := sorted(body.keys() - known):
            raise BadRequest("; ".join(f"{name[:80]!r} is not a field" for name in unknown))
        self._said = {name: value for name, value in body.items() if value is not None}

    def flag(self, name: str) -> bool:
        """A field that is true or false; false if it is not said."""
        value = self._said.get(name, False)
        if not isinstance(value, bool):
            raise BadRequest(f"{name} must be true or false")
        return value

    def word(self, name: str, words: type[Word]) -> Word | None:
        """A field that is one of some words."""
        return None if name not in self._said else _word(name, self._said[name], words)

    def says(self, name: str) -> bool:
        """Whether a field is said."""
        return name in self._said

    def text(self, name: str) -> str | None:
        """A field that is a text."""
        value = self._said.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name} must be a text")
        return value

    def seconds(self, name: str) -> float | None:
        """A field that is a time: a number of seconds, or a text such as 15m."""
        value = self._said.get(name)
        try:
            value = parse_duration(value)
        except ValueError as error:
            raise BadRequest(f"{name}: {error}") from error
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"{name} must be a time: a number of seconds, or a text such as 15m")
        return float(value)

    def ids(self, name: str) -> list[str] | None:
        """A field that is a list of request ids."""
        value = self._said.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(map(_is_id, value)):
            raise BadRequest(f"{name} must be a list of request ids")
        return value


def _is_id(value: object) -> bool:
    return isinstance(value, str) and REQUEST_ID.fullmatch(value) is not None


def request_id(request: web.Request) -> str:
    """The id in the address; raises InvalidRequestId."""
    found = request.match_info["id"]
    if not _is_id(found):
        raise InvalidRequestId("a request id is letters, digits, - and _, at most 128 of them")
    return found


async def body(request: web.Request) -> bytes:
    """The whole body; raises BodyTooLarge beyond the application's limit."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLarge from error


def fields(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any record
    """A record's fields by name."""
    return {name: getattr(record, name) for name in record.__slots__}


def answer(value: Mapping[str, Any], status: int = 200) -> web.Response:
    """A reply in JSON, laid out for people too; times as RFC 3339 writes them."""
    return web.Response(
        status=status,
        body=orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
    )
