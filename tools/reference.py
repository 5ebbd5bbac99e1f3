"""Write docs/reference/, and the table in docs/metrics.md, from the code.

Run by `make reference`; a test fails when what is committed is not what this writes. Belongs here:
the form of the tables. Must not know: any setting, metric, error or command by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from proxy import errors
from proxy.cli.main import app
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.upstream import breaker

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"

SETTINGS = """# Settings

Each is an environment variable, or a line of a `.env` file in the working directory. Sizes take
`20GiB`, times take `24h`, lists are separated by commas. Every mistake is reported at once, at the
start. `firstview config` shows what is in force and where it came from.

The bucket's credentials are those of every S3 tool: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_REGION`, `AWS_ENDPOINT_URL_S3`, profiles, web identity.

| Setting | Default | What it is |
|---|---|---|
"""

METRICS = FOLDER.parent / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"
MOST_VALUES = 10
"""Values of a label that the table names; what has more is named for errors, which have a page."""

ERRORS = """# Errors

Every error reply is a problem document (RFC 9457), `application/problem+json`, whose `type` is
`urn:firstview:problem:<slug>`: stable, so that programs can tell errors apart. `detail` is a
sentence for people; no reply names an internal address or a source's URL.

| Slug | Status | May pass by itself | Cache-Control | Meaning |
|---|---|---|---|---|
"""

COMMANDS = """# Commands

Every command takes `--help`. Settings come from the environment: see [settings](settings.md).
"""


def settings_page() -> str:
    """Every setting with its default and sentence."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = _default(field.default)
        rows.append(f"| `FIRSTVIEW_{name.upper()}` | {default} | {field.description} |")
    return SETTINGS + "\n".join(rows) + "\n"


def _default(value: Any) -> str:  # noqa: ANN401 - any setting's own type
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, bool):
        value = str(value).lower()
    return "" if value in {None, ""} else f"`{value}`"


def metrics_page() -> str:
    """The page on metrics, with every metric, its labels and its sentence in the table."""
    before, begin, rest = METRICS.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{METRICS.name} has no {BEGIN} … {END}")
    rows = ["| Metric | Kind | Labels | What it counts |", "|---|---|---|---|"]
    for one in Metrics().registry.described.values():
        labels = "; ".join(_label(name, values) for name, values in one.labels.items())
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {one.text} |")
    table = "\n".join(rows)
    return f"{before}{begin}\n{table}\n{end}{after}"


def _label(name: str, values: Sequence[str]) -> str:
    if not 0 < len(values) <= MOST_VALUES:
        return f"`{name}`"
    return f"`{name}`: {', '.join(values)}"


def errors_page() -> str:
    """Every error that a viewer or an API client can be told of, each slug once."""
    rows: dict[str, str] = {}
    for kind in _tree(errors.FirstviewError):
        if kind in _NEVER_SENT:
            continue
        passes = "yes" if kind.retryable else "no"
        title = (kind.__doc__ or "").strip().partition("\n")[0]
        row = f"| `{kind.slug}` | {kind.status} | {passes} | `{kind.cache_control}` | {title} |"
        rows.setdefault(kind.slug, row)
    return ERRORS + "\n".join(rows.values()) + "\n"


_NEVER_SENT = {
    errors.DiskExhausted,
    errors.ViewerLeft,
    errors.ViewerStalled,
    errors.SettingsError,
    errors.DataDirUnusable,
    errors.WorkerFailed,
    errors.SourceError,
    errors.ClipError,
}


def _tree(kind: type[errors.FirstviewError]) -> Iterator[type[errors.FirstviewError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ in {errors.__name__, breaker.__name__}:
            yield from _tree(below)


def commands_page() -> str:
    """Every command with its help text."""
    parts = [COMMANDS]
    for name, command in _commands(typer.main.get_command(app), "firstview"):
        context = typer.Context(command, info_name=name, terminal_width=90, max_content_width=90)
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts.append(f"## `{name}`\n\n{(command.help or '').strip()}\n\n```text\n{usage}\n```\n")
        options = [_option(option) for option in command.params if option.name != "help"]
        if options:
            parts.append("| Option | What it does |\n|---|---|\n" + "\n".join(options) + "\n")
    return "\n".join(parts)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer hides its click
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(below, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


def _option(option: Any) -> str:  # noqa: ANN401 - typer hides its click
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.param_type_name == "argument":
        names = f"`{(option.metavar or option.name or '').upper()}`"
    return f"| {names} | {(option.help or '').replace(chr(10), ' ').strip()} |"


PAGES = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "commands.md": commands_page,
}


def main() -> int:
    """Write every page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
    METRICS.write_text(metrics_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
