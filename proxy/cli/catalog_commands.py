"""`firstview catalog …`: which commands there are, and what they take.

Belongs here: arguments and options. Must not know: what a command does; see `main.py`.
"""

from __future__ import annotations

from typing import Annotated

import typer

# ruff: noqa: PLC0415 - importing what one command needs would slow down all others

app = typer.Typer(no_args_is_help=True, help="Look after the catalog.")

Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command()
def migrate(*, json: Json = False) -> None:
    """Bring the catalog's schema to what this firstview needs; harmless when repeated.

    Run it before the first replica of a new release starts: the former one goes on with the new
    schema. With SQLite there is no need to, because `serve` does the same.
    """
    from proxy import settings
    from proxy.cli import catalog_migrate as command

    raise typer.Exit(command.run(settings.load(), as_json=json))


@app.command()
def rebuild(
    *,
    json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be restored.")
    ] = False,
) -> None:
    """Restore the row of every clip that the bucket holds; harmless when repeated.

    What the catalog knows already stays. A run that was interrupted is simply begun again.
    Exit code 0: every clip has its row; 1: some objects were skipped.
    """
    from proxy import settings
    from proxy.cli import catalog_rebuild as command

    raise typer.Exit(command.run(settings.load(), as_json=json, dry_run=dry_run))
