"""Every setting: its name, unit, default, and one sentence.

Belongs here: what can be set, and whether what was set makes sense. Must not know: what is done
with it. Each is read from the environment as `FIRSTVIEW_<NAME>`, or from a `.env` file; the
bucket's credentials come by the AWS variables that every S3 tool reads.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BeforeValidator,
    ByteSize,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from proxy import mistakes
from proxy.errors import SettingsError
from proxy.secret_lists import NamedKey, named_keys, secrets

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"\d+(\.\d+)?\s*([KMGTP]i?)?B?", re.IGNORECASE)
_VARIABLE = re.compile(r"FIRSTVIEW_[A-Z0-9_]+")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 500 * 365.25 * 86400.0
"""Seconds; what lies further from a clip's birth or from now may be on no calendar."""
_LONGEST_LINK = 3650 * 86400.0
"""Seconds; the time in a link, so much earlier at most, has ten digits."""

MOST_WORKERS: Final = 96
"""While all are replaced there are two processes of each, and one data directory has 256 seats."""


def parse_duration(value: object) -> object:
    """Turn `"24h"`, `"1.5s"` or a bare number of seconds into seconds; leave the rest alone."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a time: write a number with ms, s, m, h or d, such as 30s or 24h"
        raise ValueError(msg)
    return float(match[1]) * _UNITS[match[2]]


def parse_size(value: object) -> object:
    """Turn `"20GiB"`, `"512 MB"` or a bare number into bytes; leave the rest alone."""
    if not isinstance(value, str):
        return value
    if _SIZE.fullmatch(value.strip()) is None:
        msg = (
            f"{value!r} is not a size: write a number with B, KiB, MiB, GiB, KB, MB, … as in 20GiB"
        )
        raise ValueError(msg)
    return value.strip()


def parse_address(value: str) -> tuple[str, int]:
    """Turn `"127.0.0.1:8080"`, `":8080"` (all interfaces) or `"[::1]:8080"` into host and port."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:  # noqa: PLR2004
        msg = f"{value!r} is not an address: write host:port, such as 127.0.0.1:8080 or :8080"
        raise ValueError(msg)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - ":8080" asks for just that


def parse_workers(value: object) -> int | Literal["auto"]:
    """Turn `"auto"` or a whole number from 1 on, also as text, into itself."""
    text = str(value).strip()
    if text == "auto":
        return "auto"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_WORKERS:
        msg = f"{text!r} is not a number of workers: write 1 to {MOST_WORKERS}, or auto"
        raise ValueError(msg)
    return int(text)


def _check_address(value: object) -> object:
    if isinstance(value, str):
        parse_address(value)
    return value


def _check_folder(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or value.lstrip()[0] == "~"):
        msg = f"{value!r} is no folder: write its whole path, such as /var/lib/firstview"
        raise ValueError(msg)
    return value


def _in_small_letters(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=_LONGEST)]
Delay = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=_LONGEST)]
Folder = Annotated[Path, BeforeValidator(_check_folder)]
Address = Annotated[str, BeforeValidator(_check_address)]
Workers = Annotated[int | Literal["auto"], PlainValidator(parse_workers)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_in_small_letters)
]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
Size = Annotated[ByteSize, BeforeValidator(parse_size), Field(gt=0)]


def _setting(default: Any, sentence: str, **more: Any) -> Any:  # noqa: ANN401 - pydantic's own type
    return Field(default=default, description=sentence, validate_default=True, **more)


class Settings(BaseSettings):
    """All of firstview's settings; sizes take `20GiB`, times take `24h`."""

    model_config = SettingsConfigDict(
        env_prefix="FIRSTVIEW_", env_file=".env", extra="ignore", frozen=True
    )

    # where things are
    data_dir: Folder = _setting(
        Path("data"), "Directory of the catalog, the spool, the disk cache and the embedded bucket."
    )
    bucket_url: str = _setting(
        "", "Owned bucket: `s3://name` or `file:///path`; empty: `bucket` under the data directory."
    )
    database_url: SecretStr = _setting(
        SecretStr(""),
        "Catalog: `postgresql://…` or `sqlite:///path`; empty: SQLite under the data directory.",
    )
    listen: Address = _setting(":8080", "Address of the public listener, host:port.")
    admin_listen: Address = _setting("127.0.0.1:8081", "Address of the admin listener, host:port.")
    admin_token: SecretStr | None = _setting(
        None, "Bearer token of the admin API; without one the admin API answers 401 to all."
    )
    workers: Workers = _setting(
        1,
        "Processes that serve together; `auto`: one per core that this one may use. Limits on"
        " connections, viewers, fills and memory count for each of them.",
    )
    worker_timeout: Seconds = _setting(
        "60s", "Time without a sign of life after which one of several workers is replaced."
    )
    public_url: str = _setting(
        "http://localhost:8080", "Address under which viewers reach the public listener."
    )

    # who may see clips
    gated: bool = _setting(
        False,
        "Show clips only to who has a signed link; a generation may say otherwise.",
    )
    signing_keys: SecretStr = _setting(
        SecretStr(""),
        "Keys of signed links, `name:secret,…`, newest first: that one signs, all are accepted.",
    )
    link_life: Seconds = _setting(
        "24h", "Longest life of a signed link; also the ttl of the rule at the edge."
    )
    edge_checks_links: bool = _setting(
        False, "Let Cloudflare cache gated clips; only where its own rule checks each link."
    )
    redirect_stored: bool = _setting(
        False, "Answer a GET of a stored clip with a 302 to a presigned bucket URL (900 s)."
    )
    origin_secret: SecretStr = _setting(
        SecretStr(""),
        "Secrets, comma-separated, one of which the edge sends as X-Firstview-Origin; what comes"
        " without is refused.",
    )

    # upstream
    upstream_hosts: Names = _setting(
        ("fal.media", "*.fal.media"), "Hosts that clips may be fetched from, comma-separated."
    )
    upstream_allow_insecure: bool = _setting(
        False, "Allow http and private addresses upstream; for tests and the demo only."
    )
    upstream_token: SecretStr | None = _setting(
        None, "Bearer token sent to upstream media hosts, for private files; never the fal key."
    )
    upstream_connect_timeout: Seconds = _setting("10s", "Longest wait for an upstream connection.")
    upstream_first_byte_timeout: Seconds = _setting(
        "60s", "Longest wait for upstream's status line; a file still being written blocks reads."
    )
    upstream_stall_timeout: Seconds = _setting(
        "15s", "Longest pause inside an upstream body before it is resumed."
    )
    upstream_max_redirects: int = _setting(3, "Redirects followed, each to an allowed host.", ge=0)
    upstream_max_connections: int = _setting(512, "Connections to upstream hosts.", ge=1)
    upstream_read_buffer: Size = _setting(
        "128KiB", "Bytes of one upstream body in memory beyond which no more are read."
    )
    upstream_breaker_failures: int = _setting(
        10, "Failures in a row after which an upstream host is left alone.", ge=1
    )
    upstream_breaker_pause: Seconds = _setting("5s", "Time that it is then left alone.")

    # the corridor
    max_clip_bytes: Size = _setting("2GiB", "Largest clip that is accepted.")
    max_fills: int = _setting(256, "Clips being filled at once.", ge=1)
    fill_stall_timeout: Seconds = _setting(
        "60s", "Longest time without a new byte, resuming included, before a fill fails."
    )
    fill_resume_backoff: Seconds = _setting(
        "250ms", "First wait before a broken source is resumed; doubles up to 5 s, with jitter."
    )
    seek_ahead: Size = _setting(
        "4MiB", "Distance past what has arrived beyond which a range is asked from the source."
    )
    seek_streams: int = _setting(
        16, "Ranges of one clip asked from its source at once beside the fill.", ge=0
    )
    range_fill_bytes: Size = _setting(
        "4GiB", "Bytes of fills in flight that range requests alone have set off."
    )
    disk_reserve: Size = _setting(
        "256MiB", "Free bytes always left on the disk; below, clips are streamed through."
    )

    # webhooks and fal's API
    fal_jwks_url: str = _setting(
        "https://rest.fal.ai/.well-known/jwks.json", "Where fal publishes its webhooks' keys."
    )
    jwks_max_age: Seconds = _setting("24h", "Longest time that those keys are used unasked.")
    jwks_refetch_wait: Seconds = _setting(
        "1m", "Shortest time between two requests for those keys, whoever signs."
    )
    webhook_tolerance: Seconds = _setting(
        "300s", "Longest difference between a webhook's timestamp and our clock."
    )
    webhook_max_bytes: Size = _setting("1MiB", "Largest body of a webhook.")
    webhook_body_timeout: Seconds = _setting("10s", "Longest time that such a body may take.")
    webhook_patience: Seconds = _setting(
        "5s",
        "Longest wait for the catalog before a webhook is answered 503; fal itself waits for 15 s.",
    )
    webhook_bodies: int = _setting(
        128, "Bodies of webhooks in memory at once; beyond, webhooks are answered 503.", ge=1
    )
    webhook_batch: int = _setting(64, "Webhooks that are written in one transaction at most.", ge=1)
    webhook_queue: int = _setting(
        1024, "Webhooks that wait for the catalog at once; beyond, they are answered 503.", ge=1
    )
    fal_key: SecretStr | None = _setting(
        None,
        "Key of fal's API, sent to fal's API hosts only; `FAL_KEY` is read too. Without one, fal is"
        " never asked for a result.",
        validation_alias=AliasChoices("FIRSTVIEW_FAL_KEY", "FAL_KEY", "fal_key"),
    )
    fal_queue_url: str = _setting("https://queue.fal.run", "fal's queue API.")
    fal_api_url: str = _setting("https://api.fal.ai", "fal's platform API.")
    fal_api_timeout: Seconds = _setting("10s", "Longest wait for an answer of fal's API.")
    resolve_pause: Seconds = _setting(
        "10s", "Time in which fal is not asked again for a result that it did not have."
    )

    # jobs
    worker: bool = _setting(True, "Work on jobs inside `serve`; off: only `firstview worker` does.")
    jobs_poll: Seconds = _setting("1s", "Longest wait before the jobs table is looked at again.")
    job_lease: Seconds = _setting(
        "60s", "Time after which a job of a process that died is taken over."
    )
    job_attempts: int = _setting(
        12, "Failures after which a job is dead until it is retried.", ge=1
    )
    job_backoff: Seconds = _setting(
        "5s", "First wait before a failed job is tried again; doubles, with full jitter."
    )
    job_backoff_max: Seconds = _setting("1h", "Longest such wait.")
    mirror_concurrency: int = _setting(4, "Mirror jobs that one process runs at once.", ge=1)
    mirror_bandwidth: Size | None = _setting(
        None, "Bytes a second that one process reads for mirror jobs without viewers; unset: any."
    )
    resolve_concurrency: int = _setting(4, "Resolve jobs that one process runs at once.", ge=1)
    upstream_expires_after: Seconds | None = _setting(
        None, "Age at which fal deletes clips, if your account has one; older jobs then go first."
    )
    expiry_margin: Seconds = _setting(
        "24h", "Time before that age from which a clip's job is preferred to newer ones."
    )

    # the sweep
    sweep_every: Seconds = _setting("1h", "Time between two sweeps.")
    sweep_after: Seconds = _setting("24h", "Age at which a clip that is not stored is mirrored.")
    pending_after: Seconds = _setting(
        "15m", "Age at which fal is asked for a generation that it has not reported."
    )
    check_rate: int = _setting(
        60,
        "Stored clips a minute that are looked for in the bucket, round and round; 0: none.",
        ge=0,
    )

    # the catalog
    keep_prompts: bool = _setting(False, "Keep prompts in the catalog, not only their hashes.")

    # the bucket
    single_put_max: Size = _setting("16MiB", "Largest clip sent to the bucket in one request.")
    part_size: Size = _setting(
        "16MiB", "Bytes of one part of a larger upload; grows for clips of over 10,000 parts."
    )
    upload_parts: int = _setting(4, "Parts of one upload on their way at once.", ge=1)
    max_uploads: int = _setting(32, "Bucket uploads that send bytes at once.", ge=1)
    bucket_connect_timeout: Seconds = _setting("5s", "Longest wait for a bucket connection.")
    bucket_timeout: Seconds = _setting(
        "30s", "Longest pause of the bucket inside one request before it is tried again."
    )
    bucket_attempts: int = _setting(4, "Tries of one bucket request.", ge=1)
    bucket_retry_wait: Seconds = _setting(
        "5s", "First wait before a kept clip is sent again to a bucket that was down."
    )
    bucket_retry_max_wait: Seconds = _setting("5m", "Longest such wait; they double, with jitter.")
    bucket_conditional_complete: bool | None = _setting(
        None, "Send If-None-Match when completing multipart uploads; unset: all but R2."
    )
    bucket_lookup_unknown: bool = _setting(
        True, "Look for clips in the bucket that the catalog does not know."
    )
    bucket_lookup_rate: float = _setting(50.0, "Such look-ups a second, and their burst.", gt=0)

    # the disk and memory
    cache_max_bytes: Size = _setting(
        "20GiB", "Bytes of local disk for cached clips, clips on their way in, and kept ones."
    )
    cache_room_wait: Seconds = _setting(
        "1s", "Longest wait for cached clips to make room before a clip is streamed through."
    )
    open_files: int = _setting(
        16_384,
        "Descriptors of clips kept open between requests; at most half of the process's own.",
        ge=1,
    )
    facts_ttl: Seconds = _setting(
        "60s", "Longest time that facts about a clip are believed without asking the catalog."
    )
    facts_max: int = _setting(100_000, "Clips whose facts are kept in memory.", ge=1)

    # HTTP
    cache_control: str = _setting(
        "public, max-age=31536000, immutable", "Cache-Control of a clip's replies."
    )
    cors_origin: str = _setting("*", "Access-Control-Allow-Origin of a clip's replies.")
    max_connections: int = _setting(20_000, "Open connections to the public listener.", ge=1)
    max_viewers: int = _setting(10_000, "Clip replies in progress at once.", ge=1)
    keepalive_timeout: Seconds = _setting(
        "910s", "Idle time of a kept-alive connection; must outlast Cloudflare's 900 s."
    )
    header_timeout: Seconds = _setting("20s", "Longest time that a request's header may take.")
    send_stall_timeout: Seconds = _setting(
        "60s", "Longest time that a viewer may read nothing while there is something to read."
    )
    max_line_bytes: Size = _setting("16KiB", "Longest request line or header field.")
    max_header_bytes: Size = _setting("128KiB", "Longest request header in all.")
    drain_delay: Delay = _setting(
        "0s",
        "Time after SIGTERM in which connections are still accepted and `/readyz` says no, for load"
        " balancers to notice.",
    )
    drain_timeout: Seconds = _setting("30s", "Time that replies and fills then get to finish.")
    replace_timeout: Seconds = _setting(
        "10m", "Time that replies get to finish in a worker that SIGHUP has replaced."
    )
    hit_metrics: bool = _setting(
        True, "Count and time hits that are answered in one go; off saves 1 to 3 % of such a hit."
    )
    log_level: LogLevel = _setting(
        "info", "Least severe log entries that are written: debug, info, warning, error, critical."
    )
    log_format: Literal["auto", "json", "console"] = _setting(
        "auto", "`json`, or `console` for people; `auto`: `console` in a terminal, else `json`."
    )
    traces: bool = _setting(
        False,
        "Send OpenTelemetry traces to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; needs"
        " `firstview[otel]`.",
    )
    access_log: Literal["off", "errors", "all"] = _setting(
        "all",
        "Requests that get a line in the log: all, those that were refused, failed or cut off, or"
        " none.",
    )
    access_log_hits: int = _setting(
        200,
        "Lines a second that plain hits get at most in each process; the others are counted in one"
        " line. What is no hit, and what goes wrong, always gets its own.",
        ge=0,
    )

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of the public listener."""
        return parse_address(self.listen)

    @property
    def admin_address(self) -> tuple[str, int]:
        """Host and port of the admin listener."""
        return parse_address(self.admin_listen)

    @property
    def keys_of_links(self) -> tuple[NamedKey, ...]:
        """Keys of signed links, newest first."""
        return named_keys(self.signing_keys.get_secret_value())

    @property
    def origin_secrets(self) -> tuple[bytes, ...]:
        """Secrets of the edge, any of which counts; none: whoever comes is let in."""
        return secrets(self.origin_secret.get_secret_value())

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(_bucket_problems(self.bucket_url))
        database = self.database_url.get_secret_value()
        if database and urlsplit(database).scheme not in {"sqlite", "postgresql", "postgres"}:
            problems.append("FIRSTVIEW_DATABASE_URL must start with sqlite:/// or postgresql://")
        if urlsplit(self.public_url).scheme not in {"http", "https"}:
            problems.append("FIRSTVIEW_PUBLIC_URL must start with http:// or https://")
        problems += _fal_problems(self)
        if not self.upstream_hosts:
            problems.append("FIRSTVIEW_UPSTREAM_HOSTS must name at least one host")
        problems += _gate_problems(self)
        if self.part_size < 5 * 1024 * 1024:
            problems.append("FIRSTVIEW_PART_SIZE must be at least 5MiB: no store takes less")
        problems += mistakes.contradictions(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _fal_problems(settings: Settings) -> list[str]:
    """Say which of fal's addresses are no https; they get a key, or are believed."""
    names = ("fal_jwks_url", "fal_queue_url", "fal_api_url")
    allowed = {"https", "http"} if settings.upstream_allow_insecure else {"https"}
    wrong = [name for name in names if urlsplit(getattr(settings, name)).scheme not in allowed]
    return [f"FIRSTVIEW_{name.upper()} must start with https://" for name in wrong]


def _gate_problems(settings: Settings) -> list[str]:
    """Say what would keep everybody out, or let everybody in."""
    problems = []
    for name, read in (("signing_keys", named_keys), ("origin_secret", secrets)):
        try:
            read(getattr(settings, name).get_secret_value())
        except ValueError as error:
            problems.append(f"FIRSTVIEW_{name.upper()}: {error}")
    if not settings.signing_keys.get_secret_value().strip(" ,"):
        problems += [
            f"FIRSTVIEW_{name.upper()} needs FIRSTVIEW_SIGNING_KEYS: no link could be valid"
            for name in ("gated", "edge_checks_links")
            if getattr(settings, name)
        ]
    if not 1 <= settings.link_life <= _LONGEST_LINK:
        problems.append("FIRSTVIEW_LINK_LIFE must be at least 1s and at most 3650d")
    if settings.redirect_stored and urlsplit(settings.bucket_url).scheme != "s3":
        problems.append("FIRSTVIEW_REDIRECT_STORED needs a bucket that viewers reach: s3://name")
    return problems


def _bucket_problems(url: str) -> list[str]:
    parts = urlsplit(url)
    if not url or (parts.scheme == "s3" and parts.netloc and parts.path in {"", "/"}):
        return []
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return []
    return ["FIRSTVIEW_BUCKET_URL must be s3://name or file:///absolute/path"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the environment and `.env` say: the settings, if they can be used, and each mistake."""

    settings: Settings | None
    mistakes: tuple[str, ...]


def load(**overrides: Any) -> Settings:  # noqa: ANN401 - any setting's own type
    """Read the settings from the environment and `.env`; `overrides` win.

    Raises SettingsError with every mistake, one a line, in the names that the owner wrote.
    """
    found = read(**overrides)
    if found.settings is None or found.mistakes:
        raise SettingsError("\n".join(found.mistakes))
    return found.settings


def read(**overrides: Any) -> Reading:  # noqa: ANN401 - any setting's own type
    """The same for whoever wants to look on: raises nothing.

    A name that nobody reads is a mistake, but leaves settings that can be used.
    """
    fields = Settings.model_fields
    path = Path(str(Settings.model_config.get("env_file")))
    file = mistakes.read_file(path)
    more: dict[str, Any] = {} if file.readable else {"_env_file": None}
    unknown = mistakes.unknown_names(os.environ, "environment", fields)
    unknown = mistakes.unknown_names(file.values, str(path), fields) | unknown
    rest = (*file.mistakes, *unknown.values())
    quoted = mistakes.quoted_values(os.environ, fields)
    try:
        return Reading(Settings(**more, **overrides), (*quoted.values(), *rest))
    except ValidationError as error:
        lines = [*mistakes.explain(error, fields), *_hidden_by(error, more | overrides)]
        said = set(_VARIABLE.findall("\n".join(lines)))
        lines += [line for name, line in quoted.items() if name.upper() not in said]
        return Reading(None, (*lines, *rest))


def _hidden_by(error: ValidationError, given: dict[str, Any]) -> list[str]:
    """Contradictions that pydantic does not look for while single settings are wrong.

    Those are taken at their defaults for once, and what is then said of them is left out.
    """
    found = (mistakes.field_of(each["loc"], Settings.model_fields) for each in error.errors())
    wrong = {name for name in found if name is not None}
    if not wrong:
        return []
    try:
        Settings(**given | {name: Settings.model_fields[name].default for name in wrong})
    except ValidationError as again:
        named = {mistakes.variable(name) for name in wrong}
        lines = mistakes.explain(again, Settings.model_fields)
        return [line for line in lines if not named & set(_VARIABLE.findall(line))]
    return []
