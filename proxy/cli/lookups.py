"""What commands share that only look into the catalog, or change a few rows of it.

Belongs here: opening the catalog alone, and writing lists of any length as JSON and as tables. Must
not know: what is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import orjson
import uvloop

from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.pages import MAX_PAGE, Page
from proxy.cli.running import log_no_less_than
from proxy.cli.tables import Column, Listing, terminal_width
from proxy.settings import Settings
from proxy.storage import keys

T = TypeVar("T")


def with_catalog(settings: Settings, work: Callable[[Catalog], Awaitable[T]]) -> T:
    """Do something with the catalog alone: no bucket, no listener.

    Raises SettingsError, SchemaOutdated, CatalogUnavailable.
    """
    log_no_less_than("warning", settings)

    async def opened() -> T:
        catalog = await open_catalog(
            keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
        )
        try:
            return await work(catalog)
        finally:
            await catalog.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(opened())


async def pages_of(
    list_from: Callable[[str | None, int], Awaitable[Page[T]]], most: int | None
) -> AsyncIterator[tuple[T, ...]]:
    """At most so many items of a list (None: all), page by page, of which none is empty.

    `list_from` gives the page behind a former page's `next`, with at most so many items.
    """
    after: str | None = None
    while most is None or most > 0:
        page = await list_from(after, MAX_PAGE if most is None else min(most, MAX_PAGE))
        if page.items:
            yield page.items
        if page.next is None:
            return
        after = page.next
        most = None if most is None else most - len(page.items)


def print_json(value: object) -> None:
    """Write one value: records, enums and times as people expect them."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


async def print_json_list(pages: AsyncIterator[Iterable[Any]]) -> None:
    """Write one array, item by item, so that it may be of any length."""
    opening = "["
    async for page in pages:
        for item in page:
            print(f"{opening}\n  {orjson.dumps(item).decode()}", end="")
            opening = ","
    print("[]" if opening == "[" else "\n]")


async def print_table(
    pages: AsyncIterator[tuple[T, ...]],
    columns: Sequence[Column],
    cells: Callable[[T], Sequence[str]],
    *,
    most: int | None,
    nothing: str,
) -> None:
    """Write what `pages_of` gives with this `most`, a line an item; `nothing`: if there is none."""
    listing, shown = Listing(columns, width=terminal_width()), 0
    async for page in pages:
        shown += len(page)
        for line in listing.lines([cells(item) for item in page]):
            print(line)
    if not shown:
        print(nothing)
    elif shown == most:
        print(f"… there may be more: these are the first {most}; --all shows all")
