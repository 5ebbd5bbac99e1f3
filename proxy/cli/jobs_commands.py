"""`firstview jobs …`: which commands there are, and what they take.

Belongs here: arguments and options. Must not know: what a command does; see `main.py`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.options import Json
from proxy.records import JobKind, JobState

# ruff: noqa: PLC0415 - importing what one command needs would slow down all others

app = typer.Typer(no_args_is_help=True, help="See what is still to be done, and try it again.")

Kind = Annotated[JobKind | None, typer.Option(help="Only jobs of this kind.")]


@app.command("list")
def list_(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Kind = None,
    limit: Annotated[int, typer.Option(min=1, help="Jobs that are shown at most.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Show all, however many.")] = False,
    json: Json = False,
) -> None:
    """List jobs in the order in which they are due, dead ones last.

    A job that is done is gone. A dead one failed too often, and stays until it is retried.
    """
    from proxy import settings
    from proxy.cli import jobs_list as command

    most = None if every else limit
    raise typer.Exit(command.run(settings.load(), state, kind, most=most, as_json=json))


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Request ids.")] = None,
    *,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="All jobs that are dead.")] = False,
    kind: Kind = None,
    json: Json = False,
) -> None:
    """Let jobs begin anew, now: those of the given ids that are dead or wait, or all dead ones.

    Running jobs are left alone. A running `serve` or `worker` takes them up within a second.

    Exit code 0: done; 1: some of the ids have no job.
    """
    from proxy import settings
    from proxy.cli import jobs_retry as command

    raise typer.Exit(
        command.run(settings.load(), ids or [], all_dead=all_dead, kind=kind, as_json=json)
    )
