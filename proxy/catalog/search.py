"""Generations found by what is remembered of them: status, model, prompt, time, the id's beginning.

Belongs here: which index answers which question, and how much one page may look at. Must not know:
how a row changes, or who asks.

Without `prefix` a listing runs by creation time, newest first, ids breaking ties; with it, by id,
ascending: the ids with one beginning lie side by side there and nowhere else. Each question walks
along exactly one index:

    prefix                     primary key                        filters all the rest on the way
    prompt                     generations_by_prompt_and_time     filters status, model on the way
    model and status           generations_by_model_and_status    exact
    model, or status, or none  generations_by_model, …_by_status, …_by_time    exact

`since` and `until` narrow the walk itself wherever it runs by time. A walk that filters looks at no
more than `MAX_LOOKED_AT` rows for one page, so no question is slow, however rare its answers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import Column, ColumnElement, FromClause, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import cursors, prompts, rows
from proxy.catalog.engine import Catalog
from proxy.catalog.pages import MAX_PAGE, Page
from proxy.catalog.said import HASH, NO_TEXT
from proxy.catalog.tables import generations
from proxy.errors import BadRequest
from proxy.records import REQUEST_ID, Generation, Status

MAX_LOOKED_AT: Final = 150
"""Rows that one page looks at, where it has to look at rows that it then leaves out."""

_BEHIND_ANY_ID: Final = "\x7f"
"""Sorts after every character that an id may have."""
_TABLE: Final = generations.c
_LOOKED: Final = generations.alias("looked")
"""Made once: copying all the columns takes longer than the question that they are for."""

Found = Sequence[Row[*tuple[Any, ...]]]
Condition = ColumnElement[bool]
Place = tuple[datetime, str]
"""A row's creation time and id."""


class Search:
    """Questions about many generations. Raises CatalogUnavailable when the database is away."""

    def __init__(self, catalog: Catalog) -> None:
        """Take the open catalog."""
        self._catalog = catalog

    async def find(
        self,
        *,
        status: Status | None = None,
        model: str | None = None,
        prefix: str = "",
        prompt: str | None = None,
        prompt_hash: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Generation]:
        """Return a page of the generations that fit all that is given.

        `prefix` is the beginning of an id; `prompt` is hashed as registered prompts are;
        `prompt_hash` is in hex; created at `since` or later, and before `until`, aware times;
        `after` is a former page's `next`; `limit` is cut to 500. Raises BadRequest for an `after`
        that never was a `next`, for a prefix that no id has, and for what is no hash or no text.
        """
        limit = max(1, min(limit, MAX_PAGE))
        walk = _walk(
            {"status": status, "model": _text("model", model)},
            prefix=_prefix(prefix),
            hashed=_hash(_text("prompt", prompt), prompt_hash),
            between=(since, until),
            place=None if after is None else cursors.read(after),
        )

        async def work(connection: AsyncConnection) -> tuple[Found, Place | None]:
            stop: Place | None = None
            if walk.left_out and not walk.stops_itself:
                stop = await _end(connection, walk)
            found = (await connection.execute(walk.page(stop, limit + 1))).all()
            if walk.left_out and walk.stops_itself and len(found) <= limit:
                stop = await _end(connection, walk)
            return found, stop

        found, stop = await self._catalog.read(work)
        items = tuple(rows.generation(row) for row in found[:limit])
        last = (items[-1].created_at, items[-1].request_id) if items else None
        if len(found) > limit or (walk.stops_itself and stop and last and stop[1] < last[1]):
            stop = last  # nothing that this page shows is shown again
        return Page(items, None if stop is None else cursors.write(*stop))


# --- the ways through the table -----------------------------------------------------------------


async def _end(connection: AsyncConnection, walk: _ByTime | _ById) -> Place | None:
    ends = (await connection.execute(walk.far_end())).all()
    return (ends[0][0], ends[0][1]) if ends else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ByTime:
    """Newest first, among the rows that `exactly` narrows an index to."""

    stops_itself: ClassVar[bool] = False
    """Its page needs to be told where it ends."""

    exactly: tuple[Condition, ...] = ()
    left_out: tuple[Condition, ...] = ()
    since: datetime | None
    until: datetime | None
    after: Place | None

    def far_end(self) -> Select[*tuple[Any, ...]]:
        return _last_looked_at().where(*self._along(None)).order_by(*self._order())

    def page(self, stop: Place | None, count: int) -> Select[*tuple[Any, ...]]:
        where = (*self._along(stop), *self.left_out)
        return rows.selection().where(*where).order_by(*self._order()).limit(count)

    def _along(self, stop: Place | None) -> list[Condition]:
        """One bound at either end: of two, a database may walk to the looser one."""
        along = list(self.exactly)
        if self.after is not None and (self.until is None or self.after[0] < self.until):
            along.append(rows.behind(*self.after))
        elif self.until is not None:
            along.append(_TABLE.created_at < self.until)
        if stop is not None:
            along.append(rows.not_behind(*stop))
        elif self.since is not None:
            along.append(_TABLE.created_at >= self.since)
        return along

    @staticmethod
    def _order() -> tuple[ColumnElement[Any], ...]:
        return _TABLE.created_at.desc(), _TABLE.request_id.desc()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ById:
    """The ids that begin with `prefix`, ascending.

    A page finds its end for itself: mostly it is full before, and nobody else needs to know it.
    """

    stops_itself: ClassVar[bool] = True

    prefix: str
    left_out: tuple[Condition, ...]
    after: Place | None

    def far_end(self) -> Select[*tuple[Any, ...]]:
        return _last_looked_at().where(*self._along(self._last)).order_by(_TABLE.request_id)

    def page(self, _stop: Place | None, count: int) -> Select[*tuple[Any, ...]]:
        last: Any = self._last
        if self.left_out:
            end = (
                select(_LOOKED.c.request_id)
                .where(*self._along(self._last, _LOOKED))
                .order_by(_LOOKED.c.request_id)
                .offset(MAX_LOOKED_AT - 1)
                .limit(1)
            )
            last = func.coalesce(end.scalar_subquery(), self._last)
        where = (*self._along(last), *self.left_out)
        return rows.selection().where(*where).order_by(_TABLE.request_id).limit(count)

    @property
    def _last(self) -> str:
        return self.prefix + _BEHIND_ANY_ID

    def _along(self, last: Any, table: FromClause = generations) -> list[Condition]:  # noqa: ANN401
        # A range, not LIKE: it uses the index, and "_" in ids is no wildcard.
        request_id = table.c.request_id
        if self.after is not None and self.after[1] >= self.prefix:
            return [request_id > self.after[1], request_id <= last]
        return [request_id >= self.prefix, request_id <= last]


def _walk(
    equal: dict[str, Any],
    *,
    prefix: str,
    hashed: str | None,
    between: tuple[datetime | None, datetime | None],
    place: Place | None,
) -> _ByTime | _ById:
    """Choose the index, by leaving the database no other."""
    since, until = between
    equal = {name: value for name, value in equal.items() if value is not None}
    if prefix:
        if hashed is not None:
            equal["prompt_hash"] = hashed
        hidden = [_hidden(name) == value for name, value in equal.items()]
        if since is not None:
            hidden.append(_hidden("created_at") >= since)
        if until is not None:
            hidden.append(_hidden("created_at") < until)
        return _ById(prefix=prefix, left_out=tuple(hidden), after=place)
    if hashed is not None:
        return _ByTime(
            exactly=(_TABLE.prompt_hash == hashed,),
            left_out=tuple(_hidden(name) == value for name, value in equal.items()),
            since=since,
            until=until,
            after=place,
        )
    exactly = tuple(_TABLE[name] == value for name, value in equal.items())
    return _ByTime(exactly=exactly, since=since, until=until, after=place)


def _hidden(name: str) -> ColumnElement[Any]:
    """A column's value, out of sight of indexes: one that fits a filter may not fit the order."""
    column: Column[Any] = _TABLE[name]
    return func.coalesce(column, column)


def _last_looked_at() -> Select[*tuple[Any, ...]]:
    """The place at which a walk that leaves rows out has looked at enough of them."""
    return select(_TABLE.created_at, _TABLE.request_id).offset(MAX_LOOKED_AT - 1).limit(1)


# --- what is asked ------------------------------------------------------------------------------


def _text(name: str, value: str | None) -> str | None:
    if value is not None and NO_TEXT.search(value):
        raise BadRequest(f"{name} holds characters that no text may have")
    return value


def _prefix(prefix: str) -> str:
    if prefix and REQUEST_ID.fullmatch(prefix) is None:
        raise BadRequest("prefix: no request id begins like this")
    return prefix


def _hash(prompt: str | None, said: str | None) -> str | None:
    if said is not None:
        said = said.lower()
        if HASH.fullmatch(said) is None:
            raise BadRequest("prompt_hash must be a SHA-256 in 64 hex digits")
    if prompt is None:
        return said
    hashed = prompts.prompt_hash(prompt)
    if said not in {None, hashed}:
        raise BadRequest("prompt_hash is not that of the prompt")
    return hashed
