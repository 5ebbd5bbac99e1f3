"""`firstview catalog migrate`: bring the catalog's schema to what this firstview needs.

Belongs here: the report. Must not know: any step.
"""

from __future__ import annotations

import asyncio

import orjson
import uvloop

from proxy.catalog import schema
from proxy.catalog.engine import migrate_catalog
from proxy.settings import Settings
from proxy.storage import keys


def run(settings: Settings, *, as_json: bool) -> int:
    """Migrate and say from where to where; returns the exit code.

    Raises SettingsError, CatalogUnavailable; the schema is then as it was.
    """
    url = keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before = runner.run(migrate_catalog(url))
    after = schema.HEAD if schema.is_behind(before) else before
    if as_json:
        body = {"from": before, "to": after, "migrated": before != after}
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    elif before != after:
        print(f"the catalog's schema is migrated: {before or 'none'} → {after}")
    elif after == schema.HEAD:
        print(f"nothing to do: the catalog's schema is {after}")
    else:
        print(f"nothing to do: the catalog's schema is {after}, newer than this firstview's")
    return 0
