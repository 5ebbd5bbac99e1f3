"""The catalog's tables, and how their values are kept in SQLite and in PostgreSQL.

Belongs here: columns, types, indexes. Must not know: what any change of a row means (that is
`changes.py`), who asks, or how a connection is made.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from proxy.records import JobKind, Status

W = TypeVar("W", bound=StrEnum)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Microseconds between the epoch and an aware time; exact, unlike `timestamp()`."""
    return (moment - _EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The UTC time that lies `count` microseconds after the epoch.

    Raises OverflowError outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=count)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` in PostgreSQL, microseconds since the epoch in SQLite.

    SQLite has no time type; integers sort and compare as the times do, texts only almost.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """Pick the column type of this database."""
        own = TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(own)  # type: ignore[arg-type]  # an int on SQLite's side

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        """Write a time; a naive one is a bug, since nobody knows which moment it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times in the catalog must know their time zone")
        return value if dialect.name == "postgresql" else to_microseconds(value)

    def process_result_value(
        self,
        value: datetime | int | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Read a time, always in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else from_microseconds(value)


class Word(TypeDecorator[W]):
    """One of some words, as its text."""

    impl = String(16)
    cache_ok = True

    def __init__(self, words: type[W]) -> None:
        """Take the words."""
        super().__init__()
        self.words = words

    def process_bind_param(self, value: W | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Write the word."""
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Dialect) -> W | None:  # noqa: ARG002
        """Read the word."""
        return None if value is None else self.words(value)


# Bytewise order in both databases: keyset pages and prefix searches by range depend on it, and
# PostgreSQL would otherwise sort by the language that its cluster was made with.
_RequestId = String(128).with_variant(String(128, collation="C"), "postgresql")

metadata = MetaData()

generations = Table(
    "generations",
    metadata,
    Column("request_id", _RequestId, primary_key=True),
    Column("status", Word(Status), nullable=False),
    Column("model", Text),
    Column("prompt_hash", String(64)),
    Column("prompt", Text),
    Column("fal_url", Text),
    Column("cdn_url", Text),
    Column("content_length", BigInteger),
    Column("content_type", Text),
    Column("etag", Text),
    Column("last_modified", Moment),
    Column("sha256", String(64)),
    Column("duration", Float(53)),
    Column("width", Integer),
    Column("height", Integer),
    Column("error", Text),
    Column("refusals", Integer, nullable=False, server_default="0"),
    Column("first_refused_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("completed_at", Moment),
    Column("mirrored_at", Moment),
    Column("last_viewed_at", Moment),
    Column("gated", Boolean),
    CheckConstraint(
        f"status IN ({', '.join(repr(status.value) for status in Status)})",
        name="generations_status_is_known",
    ),
    Index("generations_by_time", "created_at", "request_id"),
    Index("generations_by_status", "status", "created_at", "request_id"),
    Index("generations_by_model", "model", "created_at", "request_id"),
    Index("generations_by_model_and_status", "model", "status", "created_at", "request_id"),
    Index("generations_by_prompt_and_time", "prompt_hash", "created_at", "request_id"),
)

_ALIVE = text("dead_at IS NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("request_id", _RequestId, nullable=False),
    Column("kind", Word(JobKind), nullable=False),
    Column("asked", Boolean, nullable=False, server_default=text("false")),
    Column("expires_at", Moment),
    Column("created_at", Moment, nullable=False),
    # When it may be claimed (again): now, after a pause, or once its present lease has run out.
    Column("due_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    Column("last_error", Text),
    Column("dead_at", Moment),
    PrimaryKeyConstraint("request_id", "kind"),
    CheckConstraint(
        f"kind IN ({', '.join(repr(kind.value) for kind in JobKind)})", name="jobs_kind_is_known"
    ),
    # One for each way in which jobs are picked: asked for, close to expiry, newest.
    Index(
        "jobs_asked",
        "kind",
        "due_at",
        sqlite_where=text("asked AND dead_at IS NULL"),
        postgresql_where=text("asked AND dead_at IS NULL"),
    ),
    Index(
        "jobs_by_expiry",
        "kind",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL AND dead_at IS NULL"),
        postgresql_where=text("expires_at IS NOT NULL AND dead_at IS NULL"),
    ),
    Index("jobs_newest", "kind", "created_at", sqlite_where=_ALIVE, postgresql_where=_ALIVE),
    Index("jobs_by_due", "kind", "due_at"),
)

leases = Table(
    "leases",
    metadata,
    # What only one replica does at a time: its name, who does it until when, when it is due again,
    # and how far it has come.
    Column("name", String(32), primary_key=True),
    Column("owner", Text),
    Column("until", Moment),
    Column("due_at", Moment),
    Column("position", Text),
)
