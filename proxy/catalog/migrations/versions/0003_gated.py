"""Who may see a clip, for generations that do not leave that to the deployment.

Expands only: firstview of before writes rows without it, which then say nothing.

Belongs here: this step as it was. Must not know: any other step.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("generations", sa.Column("gated", sa.Boolean()))
