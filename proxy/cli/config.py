"""`firstview config`: every setting, its value, and where that came from.

Belongs here: the table and its JSON. Must not know: what any setting does.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

import orjson
from dotenv import dotenv_values
from pydantic import AliasChoices, ByteSize, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table

from proxy import settings as settings_module
from proxy.settings import Settings, parse_duration, parse_size

_MASK: Final = "********"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line: `value` and `default` are as JSON has them, secrets masked."""

    name: str
    value: Any
    default: Any
    unit: str
    sentence: str
    source: str


def run(*, as_json: bool) -> int:
    """Print all settings; returns the exit code. Raises SettingsError if they are not usable."""
    lines = describe(settings_module.load())
    if as_json:
        print(orjson.dumps([asdict(line) for line in lines], option=orjson.OPT_INDENT_2).decode())
    else:
        _print_table(lines)
    return 0


def describe(settings: Settings) -> list[Setting]:
    """Every setting in the order in which they are defined."""
    prefix = settings.model_config.get("env_prefix", "")
    environment = {name.upper() for name in os.environ}
    dotenv = Path(str(settings.model_config.get("env_file")))
    in_file = {name.upper() for name in dotenv_values(dotenv)} if dotenv.is_file() else set()
    places = {"environment": environment, str(dotenv): in_file}
    lines = []
    for field_name, field in type(settings).model_fields.items():
        name = f"{prefix}{field_name}".upper()
        source = _source([name, *_other_names(field)], places)
        lines.append(
            Setting(
                name=name,
                value=_plain(getattr(settings, field_name)),
                default=_plain(_default(field)),
                unit=_unit(field),
                sentence=field.description or "",
                source=source,
            )
        )
    return lines


def _other_names(field: FieldInfo) -> list[str]:
    """Environment variables that a setting is read from besides its own."""
    alias = field.validation_alias
    if not isinstance(alias, AliasChoices):
        return []
    return [choice.upper() for choice in alias.choices if isinstance(choice, str)]


def _source(names: list[str], places: dict[str, set[str]]) -> str:
    """Where the value comes from, and by which name if that is not the setting's own."""
    for place, known in places.items():
        for name in names:
            if name in known:
                return place if name == names[0] else f"{place}, {name}"
    return "default"


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


def _print_table(lines: list[Setting]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "value", "default", "from", "meaning"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(
            line.name,
            _shown(line.value, line.unit),
            _shown(line.default, line.unit) if line.value != line.default else "",
            line.source if line.source != "default" else "",
            line.sentence,
        )
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width; 80 columns would fold every line
    console.print(table)


def _shown(value: object, unit: str) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if unit == "seconds":
        return f"{value:g}s"
    return ByteSize(int(str(value))).human_readable() if unit == "bytes" else str(value)
