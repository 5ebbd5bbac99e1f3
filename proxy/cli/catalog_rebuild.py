"""`firstview catalog rebuild`: restore the catalog's rows from the bucket.

Belongs here: what is opened for it, the progress bar, the report. Must not know: how an object
becomes a row.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import Final

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from proxy.app.places import of_new_rows
from proxy.catalog.engine import open_catalog
from proxy.catalog.rebuild import Rebuild, Restored
from proxy.cli.exit_codes import PARTLY
from proxy.delivery.rebuild import Progress, rebuild
from proxy.errors import FirstviewError
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.opening import open_bucket
from proxy.telemetry.log import configure

_SHOWN: Final = 10


def run(settings: Settings, *, as_json: bool, dry_run: bool) -> int:
    """Rebuild and print the report; returns the exit code.

    Raises SettingsError, and what stopped it (BucketError, CatalogError) after printing what was
    done until then.
    """
    configure(settings)
    progress, started = Progress(), time.monotonic()
    failure: FirstviewError | None = None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_rebuild(settings, progress, dry_run=dry_run))
    except FirstviewError as error:
        if not progress.objects:
            raise
        failure = error
    show = _print_json if as_json else _print
    show(progress, time.monotonic() - started, dry_run=dry_run)
    if failure is not None:
        raise type(failure)(f"{failure.detail} Run the same again for the rest.") from failure
    return PARTLY if progress.skipped else 0


async def _rebuild(settings: Settings, progress: Progress, *, dry_run: bool) -> None:
    async with AsyncExitStack() as stack:
        catalog = await open_catalog(
            keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
        )
        stack.push_async_callback(catalog.close)
        bucket_url = keys.bucket_url(settings.bucket_url, settings.data_dir)
        bucket = await open_bucket(bucket_url, settings)
        stack.push_async_callback(bucket.close)
        rows = Rebuild(catalog, clip_url=of_new_rows(settings)["clip_url"])
        bars = stack.enter_context(_bars())
        task = bars.add_task(bucket.name, total=None, said="")

        def moved() -> None:
            said = f"{progress.objects:,} objects, {progress.bytes / 1e9:,.1f} GB"
            bars.update(task, completed=progress.objects, said=said)

        await rebuild(bucket, rows.preview if dry_run else rows.write, progress, moved=moved)


def _bars() -> Bars:
    """Nobody knows how many objects there are before they are listed, so there is no end shown."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _print(progress: Progress, seconds: float, *, dry_run: bool) -> None:
    created, stored, unchanged = (
        progress.outcomes[outcome]
        for outcome in (Restored.CREATED, Restored.STORED, Restored.UNCHANGED)
    )
    print(
        f"{'would be: ' if dry_run else ''}{created} created, {stored} now stored, "
        f"{unchanged} unchanged, {progress.skipped} skipped "
        f"({progress.objects} objects, {progress.bytes} bytes, {seconds:.1f} s)"
    )
    for skipped in progress.first_skipped[:_SHOWN]:
        print(skipped, file=sys.stderr)
    if progress.skipped > _SHOWN:
        print(f"… and {progress.skipped - _SHOWN} more; --json shows 100", file=sys.stderr)


def _print_json(progress: Progress, seconds: float, *, dry_run: bool) -> None:
    body = {
        "dry_run": dry_run,
        "objects": progress.objects,
        "bytes": progress.bytes,
        "created": progress.outcomes[Restored.CREATED],
        "stored": progress.outcomes[Restored.STORED],
        "unchanged": progress.outcomes[Restored.UNCHANGED],
        "skipped": progress.skipped,
        "first_skipped": [
            {"key": skipped.key, "reason": skipped.reason} for skipped in progress.first_skipped
        ],
        "seconds": round(seconds, 3),
    }
    print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
