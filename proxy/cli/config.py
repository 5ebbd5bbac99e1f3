"""`firstview config`: every setting, its value, where that came from, and what is wrong with it.

Belongs here: the table and its JSON. Must not know: what any setting does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

import orjson
from pydantic import ByteSize, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from proxy import settings as settings_module
from proxy.cli.exit_codes import WRONG
from proxy.cli.words import duration
from proxy.errors import SettingsError
from proxy.mistakes import names_of, read_file
from proxy.settings import Settings, parse_duration, parse_size

_MASK: Final = "********"
_DEFAULT: Final = "default"
_WIDE: Final = 120
"""Columns below which a table would break names and sentences into pieces."""
_ENDLESS: Final = 10_000
_INDENT: Final = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """One line: `value` and `default` are as JSON has them, secrets masked."""

    name: str
    value: Any
    default: Any
    unit: str
    sentence: str
    source: str


def run(*, as_json: bool, changed: bool) -> int:
    """Print all settings, or those that somebody has set; returns the exit code.

    2 where a name is set that no setting has: `serve` would not start. Raises SettingsError if
    they are not usable.
    """
    found = settings_module.read()
    if found.settings is None:
        raise SettingsError("\n".join(found.mistakes))
    lines = [
        line
        for line in describe(found.settings)
        if not changed or line.source != _DEFAULT or line.value != line.default
    ]
    if as_json:
        print(orjson.dumps([asdict(line) for line in lines], option=orjson.OPT_INDENT_2).decode())
    elif lines:
        _print_lines(lines)
    else:
        print("nobody has set anything: all is at its default")
    for mistake in found.mistakes:
        print(mistake, file=sys.stderr)
    return WRONG if found.mistakes else 0


def describe(settings: Settings) -> list[Setting]:
    """Every setting in the order in which they are defined."""
    environment = {name.upper() for name in os.environ}
    dotenv = Path(str(settings.model_config.get("env_file")))
    in_file = {name.upper() for name in read_file(dotenv).values}
    places = {"environment": environment, str(dotenv): in_file}
    lines = []
    for field_name, field in type(settings).model_fields.items():
        names = names_of(field_name, field)
        lines.append(
            Setting(
                name=names[0],
                value=_plain(getattr(settings, field_name)),
                default=_plain(_default(field)),
                unit=_unit(field),
                sentence=field.description or "",
                source=_source(names, places),
            )
        )
    return lines


def _source(names: list[str], places: dict[str, set[str]]) -> str:
    """Where the value comes from, and by which name if that is not the setting's own."""
    for place, known in places.items():
        for name in names:
            if name in known:
                return place if name == names[0] else f"{place}, {name}"
    return _DEFAULT


def _unit(field: FieldInfo) -> str:
    parts = [field.annotation, *field.metadata]
    for choice in get_args(field.annotation):  # `Size | None`
        parts += [choice, *get_args(choice)]
    if ByteSize in parts:
        return "bytes"
    validators = (getattr(part, "func", None) for part in parts)
    return "seconds" if parse_duration in validators else ""


def _default(field: FieldInfo) -> object:
    """Defaults are written as an owner would write them, such as `24h`."""
    default: object = field.default
    if _unit(field) == "seconds":
        return parse_duration(default)
    if _unit(field) == "bytes" and isinstance(default, str):
        return TypeAdapter(ByteSize).validate_python(parse_size(default))
    return default


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    if isinstance(value, SecretStr):
        return _MASK if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _print_lines(lines: list[Setting]) -> None:
    """Write a table: in a pipe one line a setting, for grep; in a narrow terminal none at all."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if console.is_terminal and console.width >= _WIDE:
        console.print(_table(lines))
    elif console.is_terminal:
        for line in lines:
            _print_apart(console, line)
    else:
        console.width = _ENDLESS
        with console.capture() as captured:
            console.print(_table(lines))
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _table(lines: list[Setting]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "value", "default", "from", "meaning"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "setting")
    for line in lines:
        table.add_row(
            line.name,
            _shown(line.value, line.unit),
            _shown(line.default, line.unit) if line.value != line.default else "",
            line.source if line.source != _DEFAULT else "",
            line.sentence,
        )
    return table


def _print_apart(console: Console, line: Setting) -> None:
    notes = [line.source] if line.source != _DEFAULT else []
    if line.value != line.default:
        notes.append(f"default: {_shown(line.default, line.unit) or 'empty'}")
    value = _shown(line.value, line.unit)
    more = f"  ({', '.join(notes)})" if notes else ""
    console.print(Text.assemble((line.name, "bold"), f"  {value}{more}"), overflow="fold")
    console.print(Padding(Text(line.sentence), (0, 0, 0, _INDENT)))


def _shown(value: object, unit: str) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if unit == "seconds":
        return duration(float(str(value)))
    return ByteSize(int(str(value))).human_readable() if unit == "bytes" else str(value)
