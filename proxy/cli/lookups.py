"""What commands share that only look into the catalog, or change a few rows of it.

Belongs here: opening the catalog alone, and writing lists of any length as JSON. Must not know:
what is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import orjson
import uvloop

from proxy.catalog.engine import Catalog, open_catalog
from proxy.cli.running import log_no_less_than
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
