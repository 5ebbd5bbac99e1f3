"""The generations: the schema of firstview 0.1, which made it without alembic.

Belongs here: this step as it was, in types of its own: later changes of `tables.py` must not reach
back. Must not know: any other step.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    moment = sa.BigInteger().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
    request_id = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "generations",
        sa.Column("request_id", request_id, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("prompt_hash", sa.String(64)),
        sa.Column("prompt", sa.Text()),
        sa.Column("fal_url", sa.Text()),
        sa.Column("cdn_url", sa.Text()),
        sa.Column("content_length", sa.BigInteger()),
        sa.Column("content_type", sa.Text()),
        sa.Column("etag", sa.Text()),
        sa.Column("last_modified", moment),
        sa.Column("sha256", sa.String(64)),
        sa.Column("duration", sa.Float(53)),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("refusals", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("first_refused_at", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("completed_at", moment),
        sa.Column("mirrored_at", moment),
        sa.Column("last_viewed_at", moment),
        sa.CheckConstraint(
            "status IN ('pending', 'available', 'stored', 'failed', 'lost')",
            name="generations_status_is_known",
        ),
    )
    op.create_index("generations_by_time", "generations", ["created_at", "request_id"])
    op.create_index("generations_by_status", "generations", ["status", "created_at", "request_id"])
    op.create_index("generations_by_model", "generations", ["model", "created_at", "request_id"])
    op.create_index("generations_by_prompt", "generations", ["prompt_hash"])
