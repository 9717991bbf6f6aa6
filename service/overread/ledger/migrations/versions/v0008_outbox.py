"""Deliveries are claimed under a lease and say more of themselves; destinations have a circuit breaker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Change the schema and keep what is in it. What was sent before counts as exposed: it may be there."""
    _deliveries()
    op.create_index("delivery_study", "delivery", ["destination", "study_uid"])
    op.create_index("delivery_transaction", "delivery", ["transaction_uid"])
    op.execute("UPDATE delivery SET study_uid = (SELECT study_uid FROM job WHERE job.id = delivery.job_id)")
    exposed = sa.text("UPDATE delivery SET exposed = :yes WHERE attempts > 0 OR sent_at IS NOT NULL")
    op.execute(exposed.bindparams(yes=True))
    op.create_table(
        "destination",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("since", "probe_at")),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("swept_at", sa.Float, nullable=False),
    )


def _deliveries() -> None:
    for name in ("worker", "cause", "warning"):
        op.add_column("delivery", sa.Column(name, sa.String, nullable=False, server_default=""))
    for name in ("study_uid", "transaction_uid"):
        op.add_column("delivery", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    op.add_column("delivery", sa.Column("lease_until", sa.Float, nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("exposed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("delivery", sa.Column("asked", sa.Integer, nullable=False, server_default="0"))
