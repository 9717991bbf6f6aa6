"""The first schema: studies, instances, decisions, jobs and their events, results, deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

UID = sa.String(64)


def upgrade() -> None:
    """Create all tables."""
    _arrivals()
    _jobs()
    _results()


def _arrivals() -> None:
    op.create_table(
        "study",
        sa.Column("uid", UID, primary_key=True),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("conflicts", sa.Integer, nullable=False),
        sa.Column("modalities", sa.String, nullable=False),
        sa.Column("first_at", sa.Float, nullable=False),
        sa.Column("last_at", sa.Float, nullable=False),
        sa.Column("completed_at", sa.Float),
        sa.Column("routed_revision", sa.Integer, nullable=False),
        sa.Column("purged_at", sa.Float),
    )
    op.create_table(
        "instance",
        sa.Column("sop_instance_uid", UID, primary_key=True),
        sa.Column("study_uid", UID, nullable=False, index=True),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("header", sa.JSON, nullable=False),
    )
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_uid", UID, nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("series_uid", sa.String, nullable=False),
        sa.Column("series_title", sa.String, nullable=False),
        sa.Column("chosen", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_uid", UID, nullable=False, index=True),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("input_digest", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("not_before", "lease_until")),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("progress", sa.Float, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "updated_at", "last_at")),
        sa.UniqueConstraint("study_uid", "model", "model_version", "input_digest"),
    )
    op.create_index("job_queue", "job", ["state", "priority", "id"])
    op.create_table(
        "job_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("who", "event", "before", "after", "why")),
    )


def _results() -> None:
    op.create_table(
        "result",
        sa.Column("sop_instance_uid", UID, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False, index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("sop_class_uid", sa.String, nullable=False),
        sa.Column("series_uid", sa.String, nullable=False),
        sa.Column("study_uid", UID, nullable=False, index=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("transfer_syntax_uid", "path", "digest")),
        sa.Column("made_at", sa.Float, nullable=False),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False, index=True),
        sa.Column("sop_instance_uid", UID, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("destination", "state")),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("sent_at", sa.Float),
        sa.Column("verified_at", sa.Float),
        sa.UniqueConstraint("sop_instance_uid", "destination"),
    )
    op.create_index("delivery_queue", "delivery", ["destination", "state", "not_before"])
