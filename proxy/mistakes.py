"""What is wrong with settings, in lines that say how to mend it.

Belongs here: names that nobody reads, a `.env` file that cannot be read, settings that contradict
each other, and pydantic's findings in the owner's words. Must not know: any default, or what is
done with a setting.
"""

from __future__ import annotations

import difflib
import io
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from proxy.host_patterns import HostPattern

if TYPE_CHECKING:
    from proxy.settings import Settings

PREFIX: Final = "FIRSTVIEW_"

_LIKE: Final = 0.6
"""How much of a name must agree with another for it to be meant, perhaps."""
_DAY: Final = 86400
_MARK: Final = "\ufeff"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_QUOTED: Final = re.compile(r"""(["']).*\1""", re.DOTALL)
_LARGEST_PUT: Final = 5 * 1024**3

# A Service called "firstview" or "firstview-admin" makes Kubernetes set such names in every pod of
# its namespace: kubernetes.io/docs/tutorials/services/connect-applications-service.
_OF_KUBERNETES: Final = re.compile(
    r"FIRSTVIEW_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)

_WORDS: Final = {
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_parsing": "write a number",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "greater_than_equal": "write {ge} or more",
    "greater_than": "write more than {gt}",
    "less_than_equal": "write {le} or less",
    "less_than": "write less than {lt}",
    "literal_error": "write {expected}",
    "enum": "write {expected}",
}
"""What to write instead, by the type of pydantic's finding and the words in its context."""


def explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Turn pydantic's findings into lines such as `FIRSTVIEW_LISTEN: "x" is not an address`.

    What was written is repeated, but for secrets.
    """
    lines: list[str] = []
    for found in error.errors(include_url=False):
        field = field_of(found["loc"], fields)
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] in _WORDS:
            context = {name: _amount(value) for name, value in found.get("ctx", {}).items()}
            message = _WORDS[found["type"]].format(**context)
        if field is None:
            lines.extend(text for text in message.split("; ") if text)
        else:
            hidden = _is_secret(fields[field]) or "secret" in found["type"]
            value = repr(found["input"])
            given = "" if hidden or value in message else f" (got {value})"
            lines.extend(f"{variable(field)}: {text}{given}" for text in message.split("; "))
    return lines


def field_of(location: tuple[int | str, ...], fields: Mapping[str, FieldInfo]) -> str | None:
    """Which setting a finding is about; None: about several at once."""
    for place in map(str, location[:1]):
        for name, field in fields.items():
            if place == name or place.upper() in names_of(name, field):
                return name
    return None


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{field}".upper()


def names_of(name: str, field: FieldInfo) -> list[str]:
    """Every variable that a setting is read from, its own first."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else []
    others = [choice.upper() for choice in choices if isinstance(choice, str)]
    return list(dict.fromkeys([variable(name), *others]))


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr.__name__ in repr(field.annotation)


def _amount(value: Any) -> Any:  # noqa: ANN401 - whatever pydantic has in its context
    """Limits as a person writes them: the longest time is no number of seconds."""
    long = isinstance(value, float) and value >= 1000 * _DAY
    return f"{value / _DAY:.0f}d" if long else value


# -- names ---


def unknown_names(
    written: Iterable[str], place: str, fields: Mapping[str, FieldInfo]
) -> dict[str, str]:
    """Names with our prefix that are no setting's, each with the line that says so.

    `place` is where they were written: the environment, or a file. What Kubernetes writes of its
    own is passed over.
    """
    known = {name for field in fields for name in names_of(field, fields[field])}
    lines = {}
    for name in sorted(set(written)):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or _OF_KUBERNETES.fullmatch(upper):
            continue
        near = _nearest(upper, known)
        meant = f"is it {near}?" if near else "see `firstview config` for all that there are"
        lines[name] = f"{name}: there is no such setting in this firstview ({place}): {meant}"
    return lines


def quoted_values(
    environment: Mapping[str, str], fields: Mapping[str, FieldInfo]
) -> dict[str, str]:
    """Settings in the environment whose value stands in quotes, each with the line that says so.

    A shell takes them away, and so does `.env`; `docker run --env-file` does not.
    """
    known = {name for field in fields for name in names_of(field, fields[field])}
    return {
        name: f"{name}: its value stands in quotes, which count as a part of it: take them away"
        for name, value in environment.items()
        if name.upper() in known and _QUOTED.fullmatch(value)
    }


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # Without the prefix, which all of them have in common.
    short = [each.removeprefix(PREFIX) for each in known if each.startswith(PREFIX)]
    found = difflib.get_close_matches(name.removeprefix(PREFIX), sorted(short), n=1, cutoff=_LIKE)
    return f"{PREFIX}{found[0]}" if found else None


# -- the file ---


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A `.env` file: what it sets, what is wrong with it, and whether it can be read at all."""

    values: Mapping[str, str]
    mistakes: tuple[str, ...] = ()
    readable: bool = True


def read_file(path: Path) -> EnvFile:
    """Read a `.env` file; one that is not there sets nothing, and nothing is wrong with it."""
    try:
        if not path.is_file():
            return EnvFile({})
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        mend = "let the user that runs firstview read it, or remove it"
        line = f"{path}: cannot be read ({error.strerror}): {mend}"
        return EnvFile({}, (line,), readable=False)
    except UnicodeDecodeError:
        line = f"{path}: is not text in UTF-8: save it as such"
        return EnvFile({}, (line,), readable=False)
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> EnvFile:
    from dotenv.parser import parse_stream  # noqa: PLC0415 - only where there is such a file

    # What it would say of each line when the settings are read is said here.
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)
    values: dict[str, str] = {}
    lines: list[str] = []
    if text.startswith(_MARK):
        lines.append(f"{path}: begins with a byte order mark: save it as UTF-8 without one")
    for binding in parse_stream(io.StringIO(text.removeprefix(_MARK))):
        text = binding.original.string
        empty = len(text) - len(text.lstrip("\n"))  # lines above count as the statement's own
        at = f"{path}, line {binding.original.line + empty}"
        is_name = binding.key is None or _NAME.fullmatch(binding.key)
        if binding.error or not is_name:
            lines.append(f"{at}: is no setting: write NAME=value, and # before a comment")
        elif binding.key is not None and binding.value is None:
            lines.append(f"{at}: {binding.key} has no value: write {binding.key}=value")
        elif binding.key is not None:
            values[binding.key] = binding.value or ""
    return EnvFile(values, tuple(lines))


# -- what contradicts ---


def contradictions(settings: Settings) -> list[str]:
    """Settings that make no sense, alone or together; each line names what to change."""
    lines = [*_of_listeners(settings), *_of_limits(settings), *_of_texts(settings)]
    lines += _of_database(settings.database_url.get_secret_value())
    public = urlsplit(settings.public_url)
    if public.scheme in {"http", "https"} and (not public.hostname or public.query):
        lines.append("FIRSTVIEW_PUBLIC_URL must be like https://cdn.example.com, without a query")
    return lines


def _of_listeners(settings: Settings) -> list[str]:
    (host, port), (admin_host, admin_port) = settings.listen_address, settings.admin_address
    meet = host == admin_host or {"0.0.0.0", "::"} & {host, admin_host}  # noqa: S104 - read, not bound
    if port and port == admin_port and meet:
        text = "FIRSTVIEW_ADMIN_LISTEN is the same address as FIRSTVIEW_LISTEN: give it a port"
        return [f"{text} of its own, such as 127.0.0.1:{8081 if port != 8081 else 8082}"]  # noqa: PLR2004
    return []


def _of_database(url: str) -> list[str]:
    """Addresses that name no file or no server. Nothing of them is repeated."""
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:///")
        if path in {url, "", ":memory:"}:
            return [
                "FIRSTVIEW_DATABASE_URL must name a file, as in sqlite:////var/lib/catalog.sqlite"
            ]
    elif url:
        try:
            parts = urlsplit(url)
            fits = parts.netloc.count("@") <= 1 and (parts.port or 1) > 0
        except ValueError:
            fits = False
        if not fits:
            mend = "percent-encode special characters in its user and password"
            return [f"FIRSTVIEW_DATABASE_URL is no address: {mend}"]
    return []


def _of_limits(settings: Settings) -> list[str]:
    pairs = (
        ("job_backoff", "job_backoff_max"),
        ("bucket_retry_wait", "bucket_retry_max_wait"),
        ("max_line_bytes", "max_header_bytes"),
    )
    lines = [
        f"{variable(less)} must not be more than {variable(more)}: lower the one or raise the other"
        for less, more in pairs
        if getattr(settings, less) > getattr(settings, more)
    ]
    lines += [
        f"{variable(name)} must be at most 5GiB: no store takes more in one request"
        for name in ("single_put_max", "part_size")
        if getattr(settings, name) > _LARGEST_PUT
    ]
    return lines


def _of_texts(settings: Settings) -> list[str]:
    lines = [
        f"{variable(name)} must be one line of plain ASCII: it is sent in a field of every reply"
        for name in ("cache_control", "cors_origin")
        if not getattr(settings, name).isprintable() or not getattr(settings, name).isascii()
    ]
    for pattern in settings.upstream_hosts:
        try:
            HostPattern.parse(pattern)
        except ValueError as error:
            lines.append(f"FIRSTVIEW_UPSTREAM_HOSTS: {pattern!r} {error}")
    return lines
