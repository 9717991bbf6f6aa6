"""Results that say the same in different ways, of which a destination gets one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0002"


def upgrade() -> None:
    """Every earlier result was the only way to say what it says."""
    op.add_column("result", sa.Column("alternative", sa.String, nullable=False, server_default=""))
    op.add_column("result", sa.Column("variant", sa.String, nullable=False, server_default=""))
