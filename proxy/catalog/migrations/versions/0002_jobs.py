"""Jobs and leases, and indexes for each way in which generations are searched.

Expands only, but for `generations_by_prompt`, which the new index on the same column replaces for
firstview 0.1 too: its processes go on beside this schema.

Belongs here: this step as it was. Must not know: any other step.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and indexes."""
    moment = sa.BigInteger().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
    request_id = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "jobs",
        sa.Column("request_id", request_id, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("asked", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("expires_at", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", moment),
        sa.Column("last_error", sa.Text()),
        sa.Column("dead_at", moment),
        sa.PrimaryKeyConstraint("request_id", "kind"),
        sa.CheckConstraint("kind IN ('mirror', 'resolve')", name="jobs_kind_is_known"),
    )
    _partial_index(
        "jobs_by_expiry", ["kind", "expires_at"], "expires_at IS NOT NULL AND dead_at IS NULL"
    )
    _partial_index("jobs_newest", ["kind", "created_at"], "dead_at IS NULL")
    op.create_index("jobs_by_due", "jobs", ["kind", "due_at"])
    # After the one above: of two that fit alike, SQLite takes the index that was made last.
    _partial_index("jobs_asked", ["kind", "due_at"], "asked AND dead_at IS NULL")
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("owner", sa.Text()),
        sa.Column("until", moment),
        sa.Column("due_at", moment),
        sa.Column("position", sa.Text()),
    )
    op.create_index(
        "generations_by_model_and_status",
        "generations",
        ["model", "status", "created_at", "request_id"],
    )
    op.create_index(
        "generations_by_prompt_and_time", "generations", ["prompt_hash", "created_at", "request_id"]
    )
    op.drop_index("generations_by_prompt", "generations")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name, "jobs", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
