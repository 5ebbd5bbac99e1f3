"""`firstview catalog …`: which commands there are, and what they take.

Belongs here: arguments and options. Must not know: what a command does; see `main.py`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.options import Json
from proxy.records import Status

# ruff: noqa: PLC0415 - importing what one command needs would slow down all others

app = typer.Typer(no_args_is_help=True, help="Find clips, and look after the catalog.")


@app.command()
def search(
    *,
    status: Annotated[Status | None, typer.Option(help="Only clips with this status.")] = None,
    model: Annotated[str | None, typer.Option(help="Only clips of this model.")] = None,
    prefix: Annotated[str, typer.Option(help="Only ids that begin like this.")] = "",
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only clips of just this prompt.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Made since 2026-11-01, or in the last 24h.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Made before 2026-11-01, or before the last 24h."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Clips that are shown at most.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Show all, however many.")] = False,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write all that is known as CSV.")] = False,
) -> None:
    """Find clips by what is remembered of them, newest first; by id with --prefix.

    Which clips came from a prompt is known even where prompts themselves are not kept.
    """
    from proxy import settings
    from proxy.cli import catalog_search as command

    question = command.Question(
        status=status,
        model=model,
        prefix=prefix,
        prompt=prompt,
        since=since,
        until=until,
        most=None if every else limit,
    )
    raise typer.Exit(command.run(settings.load(), question, as_json=json, as_csv=csv))


@app.command()
def show(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The clip's request id.")],
    *,
    json: Json = False,
) -> None:
    """Show everything that is known of one clip: both addresses, its error, its jobs.

    Exit code 1: the catalog does not know it.
    """
    from proxy import settings
    from proxy.cli import catalog_show as command

    raise typer.Exit(command.run(settings.load(), request_id, as_json=json))


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
