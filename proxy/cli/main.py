"""The `firstview` command: which commands there are, what they take, and how failures are told.

Belongs here: arguments, options, exit codes. Must not know: what a command does; each has a file
of its own with a `run`, imported only when it is called, so that `--help` answers at once.

Exit codes: 0 done; 1 done in part; 2 nothing was done, the settings or arguments are wrong;
3 nothing or not all was done, something that was needed failed and the same may work later;
130 and 143 stopped by Ctrl-C or SIGTERM before all was done.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from proxy import __version__
from proxy.cli import catalog_commands, failing, jobs_commands
from proxy.cli.exit_codes import FAILED, WRONG
from proxy.cli.options import Json
from proxy.errors import FirstviewError, RequestError, SettingsError

# ruff: noqa: PLC0415 - importing what one command needs would slow down all others

_SERVING = "Serving"
_OWNING = "Making clips yours"
_LOOKING = "Looking"

app = typer.Typer(
    name="firstview",
    help="A pull-through CDN origin that makes AI video clips yours on first view.",
    rich_markup_mode="markdown",  # the other one keeps the line breaks of the code
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(catalog_commands.app, name="catalog", rich_help_panel=_LOOKING)
app.add_typer(jobs_commands.app, name="jobs", rich_help_panel=_LOOKING)


def _show_version(value: bool) -> None:
    if value:
        print(f"firstview {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A pull-through CDN origin that makes AI video clips yours on first view."""


@app.command(rich_help_panel=_SERVING)
def serve() -> None:
    """Run the origin until SIGTERM or Ctrl-C, then let replies and fills finish.

    A second SIGTERM ends them now, in good order, with exit code 143; a second Ctrl-C ends the
    process at once, with 130. Neither loses anything. SIGHUP replaces the serving processes one by
    one, without a gap, by new ones that read the settings anew.
    """
    from proxy import settings
    from proxy.cli import lean

    read = settings.load()
    lean.without_tables()
    from proxy.cli import serve as command

    raise typer.Exit(command.run(read))


@app.command(rich_help_panel=_SERVING)
def worker() -> None:
    """Work on jobs, without viewers, until SIGTERM or Ctrl-C.

    For more hands than `serve` has, on any machine. It has an admin listener, so each process of
    one machine needs a FIRSTVIEW_ADMIN_LISTEN of its own; port 0 takes any that is free. SIGHUP
    lets it finish its jobs and begin afresh with the settings of then.
    """
    from proxy import settings
    from proxy.cli import lean

    read = settings.load()
    lean.without_tables()
    from proxy.cli import worker as command

    raise typer.Exit(command.run(read))


@app.command(rich_help_panel=_OWNING)
def mirror(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Request ids.")] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All clips that are available and not stored.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="With --all: only of this model.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --all: made since 2026-11-01, or in the last 24h."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --all: try those again that were given up.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring clips into the bucket now, and wait until they are there.

    Works beside any `serve` and `worker`, or alone. Ctrl-C stops it; the same command goes on.

    Exit code 0: all are stored; 1: some failed; 2: none of the ids is known; 3: the bucket or the
    catalog is away; 130: stopped by Ctrl-C.
    """
    from proxy import settings
    from proxy.cli import mirror as command

    wish = command.Wish(ids=tuple(ids or ()), every=every, model=model, since=since, retry=retry)
    raise typer.Exit(command.run(settings.load(), wish, as_json=json))


@app.command(rich_help_panel=_OWNING)
def sweep(*, json: Json = False) -> None:
    """Look once, now, for clips that nobody told us of, as `serve` does every hour.

    Files the jobs; whoever works on jobs does them. Exit code 3: another process is at it.
    """
    from proxy import settings
    from proxy.cli import sweep as command

    raise typer.Exit(command.run(settings.load(), as_json=json))


@app.command("import", rich_help_panel=_OWNING)
def import_file(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(help="CSV or JSON lines with request_id, fal_url, …", dir_okay=False),
    ] = None,
    from_postgres: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Instead of a file, read an application's own table, at postgresql://user@host/"
            "database; the password may come from PGPASSWORD or ~/.pgpass.",
        ),
    ] = None,
    table: Annotated[str, typer.Option(help="That table, as NAME or SCHEMA.NAME.")] = "generations",
    json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only read and check the rows.")
    ] = False,
    refused: Annotated[
        Path | None,
        typer.Option(help="Write all refused rows and the reasons to this CSV.", dir_okay=False),
    ] = None,
) -> None:
    """Register the generations that a file or a table lists; harmless when repeated.

    A table's own statuses do not count: a clip that it says is mirrored becomes stored once it is
    found in the bucket. Exit code 0: all rows are registered; 1: some were refused; 2: none could
    be used.
    """
    from proxy import settings
    from proxy.cli.importing import Options

    options = Options(as_json=json, dry_run=dry_run, refused_file=refused)
    if file is not None and from_postgres is None:
        from proxy.cli import import_file as of_file

        raise typer.Exit(of_file.run(settings.load(), file, options))
    if from_postgres is not None and file is None:
        from proxy.cli import import_postgres as of_postgres

        raise typer.Exit(of_postgres.run(settings.load(), from_postgres, table, options))
    raise SettingsError("firstview import: give either a FILE or --from-postgres URL")


@app.command(rich_help_panel=_SERVING)
def sign(
    what: Annotated[
        list[str],
        typer.Argument(metavar="ID|PATH", help="Request ids, or paths that begin with /."),
    ],
    *,
    life: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long it works, such as 15m; FIRSTVIEW_LINK_LIFE if not said, and at most.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The key to sign with; the newest if not said."),
    ] = None,
    url_safe: Annotated[
        bool,
        typer.Option("--url-safe", help="The URL-safe alphabet, for an edge rule with the flag s."),
    ] = False,
    json: Json = False,
) -> None:
    """Make signed links to clips, which work at the edge and here; see FIRSTVIEW_SIGNING_KEYS.

    Asks nobody: a link can be made before there is a clip.
    """
    from proxy import settings
    from proxy.cli import sign as command

    wish = command.Wish(life=life, key=key, url_safe=url_safe)
    raise typer.Exit(command.run(settings.load(), what, wish, as_json=json))


@app.command(rich_help_panel=_SERVING)
def demo(
    *,
    speed: Annotated[str, typer.Option(help="Speed of the fake fal.media.")] = "1MiB/s",
    latency: Annotated[str, typer.Option(help="Time that it takes to answer.")] = "80ms",
    port: Annotated[int | None, typer.Option(help="Port of the clips; 8080 if free.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of /metrics; 8081 if free.")] = None,
    page_port: Annotated[int | None, typer.Option(help="Port of the page; 8082 if free.")] = None,
    fal_port: Annotated[
        int | None, typer.Option(help="Port of the fake fal.media; 8083 if free.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Keep bucket and catalog in this folder, for another run.", file_okay=False
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show each way in, say what happened, and end.")
    ] = False,
) -> None:
    """See clips become yours: a proxy, a bucket, a fake fal and a page, all on loopback.

    By views, by signed webhooks, and by the sweep. Needs no settings, no account and no network; a
    port that is taken is replaced by a free one.
    Exit code with --once: 0 if every view of a clip that was stored was a hit, else 1.
    """
    from proxy.cli.demo import command
    from proxy.cli.demo.stage import Options

    options = Options(
        rate=command.read_rate(speed),
        latency=command.read_seconds(latency),
        port=port,
        admin_port=admin_port,
        page_port=page_port,
        fal_port=fal_port,
        keep=keep,
    )
    raise typer.Exit(command.run(options, once=once))


@app.command(rich_help_panel=_LOOKING)
def health(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready for viewers, too.")
    ] = False,
) -> None:
    """Ask the `serve` or `worker` behind FIRSTVIEW_ADMIN_LISTEN whether it lives.

    What container engines ask; it needs no curl. Exit code 0: it does; 1: it does not, or nobody
    answers.
    """
    from proxy import settings
    from proxy.cli import health as command

    raise typer.Exit(command.run(settings.load(), ready=ready))


@app.command(rich_help_panel=_LOOKING)
def config(
    *,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only those that somebody has set.")
    ] = False,
    json: Json = False,
) -> None:
    """Show every setting: its value, default, meaning, and where the value comes from.

    Secrets are masked. Exit code 2: some are wrong, or a FIRSTVIEW_ name is set that no setting
    has, so that `serve` would not start; each is named on stderr.
    """
    from proxy.cli import config as command

    raise typer.Exit(command.run(as_json=json, changed=changed))


@app.command(rich_help_panel=_LOOKING)
def doctor(
    *,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask here in place of FIRSTVIEW_PUBLIC_URL."),
    ] = None,
    json: Json = False,
) -> None:
    """Try everything that firstview needs, for real, and say what to mend.

    Settings, disk, machine, bucket, database, fal, and the public address with whatever stands in
    front of it. What is written for it is removed again. Exit code 0: nothing fails, warnings
    perhaps; 1: something fails; 2: the settings are wrong, nothing else was tried.
    """
    from proxy.cli.doctor import command

    raise typer.Exit(command.run(url=url, as_json=json))


def _open_what_is_closed() -> None:
    """Have the three standard streams, whoever started this without one (`2>&-`).

    Python then has None in its place, on which logging breaks, and the next file that is opened
    gets its number: a socket or a database would be sent whatever anybody writes there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # mostly this very number: the lowest free one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def main() -> None:
    """Run the command line and exit."""
    _open_what_is_closed()
    try:
        app()
    except SettingsError as error:
        print(error.detail, file=sys.stderr)
        sys.exit(WRONG)
    except FirstviewError as error:
        print(f"firstview: {failing.told(error)}", file=sys.stderr)
        sys.exit(WRONG if isinstance(error, RequestError) else FAILED)
    except BrokenPipeError:
        # `firstview config | head`: whoever read has enough; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
