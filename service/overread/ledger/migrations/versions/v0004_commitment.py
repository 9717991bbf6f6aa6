"""Storage commitment: what was promised to whom, until when, and instances found by their UID alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

UID = sa.String(64)


def upgrade() -> None:
    """Change the schema and keep what is in it."""
    op.add_column("study", sa.Column("committed_until", sa.Float, nullable=False, server_default="0"))
    op.create_index("ix_instance_sop_instance_uid", "instance", ["sop_instance_uid"])
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("calling_ae", sa.String, nullable=False),
        sa.Column("transaction_uid", UID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("judged_at", sa.Float, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("reported_at", sa.Float),
        sa.Column("reason", sa.String, nullable=False),
        sa.UniqueConstraint("calling_ae", "transaction_uid", name="commitment_transaction"),
    )
    op.create_table(
        "commitment_study",
        sa.Column("commitment_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("study_uid", UID, primary_key=True, index=True),
    )
