"""Jobs have a deadline and count the processes that they took down; of each the evidence is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Change the schema and keep what is in it."""
    op.add_column("job", sa.Column("deadline", sa.Float, nullable=False, server_default="0"))
    op.add_column("job", sa.Column("late", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("kills", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "death",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("signal", sa.String, nullable=False),
        sa.Column("exit_code", sa.Integer, nullable=True),
        sa.Column("peak_bytes", sa.BigInteger, nullable=False),
        sa.Column("said", sa.String, nullable=False),
    )
    op.create_index("ix_death_job_id", "death", ["job_id"])
