"""`firstview sweep`: sweep once, now.

Belongs here: the report. Must not know: what a sweep does.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict

from proxy.app import App
from proxy.cli.exit_codes import FAILED, PARTLY
from proxy.cli.lookups import print_json
from proxy.cli.running import Stop, log_no_less_than, until_stopped
from proxy.jobs.sweep import SweepReport
from proxy.settings import Settings


def run(settings: Settings, *, as_json: bool) -> int:
    """Sweep and print the report; returns the exit code, 3: another process is at it.

    Raises SettingsError, CatalogError, BucketError.
    """
    log_no_less_than("warning", settings)
    report = until_stopped(lambda stop: _sweep(settings, stop))
    if isinstance(report, Stop):
        print("stopped; the next sweep goes on where this one had come to", file=sys.stderr)
        return report.exit_code
    if report is None:
        print("firstview: another process is sweeping just now", file=sys.stderr)
        return FAILED
    if as_json:
        print_json(asdict(report))
    else:
        _print(report, settings)
    return PARTLY if report.aborted_uploads is None else 0


async def _sweep(settings: Settings, stop: Stop) -> SweepReport | Stop | None:
    async with App(settings).working(works=False, sweeps=False) as app:
        sweeping = asyncio.create_task(app.labour.sweeper.sweep(force=True))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({sweeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if sweeping.done():
            return sweeping.result()
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        return stop


def _print(report: SweepReport, settings: Settings) -> None:
    print(f"clips not stored    {report.unstored} mirror jobs filed")
    if settings.fal_key is None:
        print("clips pending       not asked for: FIRSTVIEW_FAL_KEY is not set")
    else:
        print(f"clips pending       {report.pending} resolve jobs filed")
    if report.aborted_uploads is None:
        print("unfinished uploads  the bucket could not be asked; sweep again")
    else:
        print(f"unfinished uploads  {report.aborted_uploads} aborted")
    print(f"took                {report.seconds:.1f} s")
