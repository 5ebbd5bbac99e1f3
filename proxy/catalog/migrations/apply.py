"""Applying the steps: one transaction from whatever a database has to what this firstview needs.

The steps expand first and contract one release later: a column or table goes only once no released
firstview uses it any more. So processes of two neighbouring releases share one schema, and an older
process accepts a newer one. There is no way down, since it would drop what was written since: go
back to the former release and keep the schema, or restore a backup.

alembic's own environment script is not needed, because the caller brings the connection; and all
files are read before one is opened, so that none is read on an event loop.

Belongs here: finding the steps, recognising what a database has. Must not know: how a connection is
made, or any single step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from proxy.catalog.schema import HEAD, REVISIONS
from proxy.errors import SettingsError

_OURS: Final = frozenset({"request_id", "status", "cdn_url", "refusals", "first_refused_at"})
"""Columns by which the generations of firstview 0.1 are told from an application's own."""


def load() -> ScriptDirectory:
    """Read all steps from their files."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    scripts.get_heads()
    return scripts


def upgrade(connection: Connection, scripts: ScriptDirectory) -> str | None:
    """Bring the schema to HEAD in the connection's own transaction; return its former revision.

    None: there was none. The caller keeps all others out and commits. Tables that were made before
    there were revisions count as the first. A revision that is not known is a newer release's, and
    is left alone. Raises SettingsError for a table named generations that is not ours.
    """
    recorded = MigrationContext.configure(connection).get_current_revision()
    before = recorded or _unrecorded(connection)
    if before is not None and before not in REVISIONS:
        return before

    def steps(*_: object) -> Iterator[RevisionStep]:
        for script in reversed(list(scripts.iterate_revisions(HEAD, before or "base"))):
            yield MigrationStep.upgrade_from_script(scripts.revision_map, script)

    context = MigrationContext.configure(connection, opts={"fn": steps})
    if recorded is None and before is not None:
        context.stamp(scripts, before)
    with Operations.context(context):
        context.run_migrations()
    return before


def _unrecorded(connection: Connection) -> str | None:
    looking = inspect(connection)
    if not looking.has_table("generations"):
        return None
    if not {column["name"] for column in looking.get_columns("generations")} >= _OURS:
        raise SettingsError(
            "FIRSTVIEW_DATABASE_URL names a database that has another table named generations: "
            "give firstview a database of its own, and see `firstview import --from-postgres`"
        )
    return REVISIONS[0]
