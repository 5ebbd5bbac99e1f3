"""`firstview jobs retry`: let jobs begin anew.

Belongs here: which ones, and the report. Must not know: how jobs are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from proxy.catalog.engine import Catalog
from proxy.catalog.jobs import Jobs
from proxy.catalog.sweeping import Sweeping
from proxy.cli.exit_codes import PARTLY
from proxy.cli.lookups import print_json, with_catalog
from proxy.errors import SettingsError
from proxy.records import JobKind
from proxy.settings import Settings

_SHOWN: Final = 10


def run(
    settings: Settings,
    ids: Sequence[str],
    *,
    all_dead: bool,
    kind: JobKind | None,
    as_json: bool,
) -> int:
    """Retry the jobs of some ids, or all dead ones; returns the exit code.

    Raises SettingsError unless it is just one of both, CatalogError.
    """
    if bool(ids) == all_dead:
        raise SettingsError("firstview jobs retry: give either request ids or --all-dead")

    async def work(catalog: Catalog) -> tuple[int, list[str]]:
        wanted = list(dict.fromkeys(ids))
        jobs = Jobs(catalog)
        if all_dead:
            return await jobs.retry(kind=kind), []
        found = await Sweeping(catalog, expires_after=None).jobs_of(wanted)
        has = {name for name, of in found.items() if any(kind in {None, job.kind} for job in of)}
        retried = await jobs.retry(request_ids=sorted(has), kind=kind)
        return retried, [name for name in wanted if name not in has]

    retried, without = with_catalog(settings, work)
    if as_json:
        print_json({"retried": retried, "without_job": without})
        return PARTLY if without else 0
    print(f"{retried} {'job begins' if retried == 1 else 'jobs begin'} anew")
    for name in without[:_SHOWN]:
        print(f"{name} has no such job", file=sys.stderr)
    if len(without) > _SHOWN:
        print(f"… and {len(without) - _SHOWN} more have none", file=sys.stderr)
    return PARTLY if without else 0
