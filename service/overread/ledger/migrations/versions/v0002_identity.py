"""An instance is known by its study and its UID; conflicts are kept; a job belongs to a revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

UID = sa.String(64)
PATH = sa.String().with_variant(sa.String(collation="C"), "postgresql")
# SQLite does not remember the names of constraints that were made without one; these stand for them.
NAMES = {"pk": "%(table_name)s_pkey", "uq": "job_study_uid_model_model_version_input_digest_key"}


def upgrade() -> None:
    """Change the schema and keep what is in it."""
    op.add_column("study", sa.Column("duplicates", sa.Integer, nullable=False, server_default="0"))
    _instances()
    _conflicts()
    _jobs()


def _instances() -> None:
    op.drop_index("ix_instance_study_uid", "instance")  # the new key begins with the study
    key = ["study_uid", "sop_instance_uid"]
    with op.batch_alter_table("instance", naming_convention=NAMES) as table:
        table.drop_constraint("instance_pkey", type_="primary")
        table.create_primary_key("instance_pkey", key)
        table.alter_column("path", type_=PATH, existing_type=sa.String, existing_nullable=False)
    op.create_index("ix_instance_path", "instance", ["path"])


def _conflicts() -> None:
    op.create_table(
        "conflict",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_uid", UID, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("calling_ae", sa.String, nullable=False),
        sa.Column("path", PATH, nullable=False, index=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("new_path", sa.String, nullable=False),
        sa.Column("new_digest", sa.String(64), nullable=False),
    )
    op.create_index("conflict_instance", "conflict", ["study_uid", "sop_instance_uid"])


def _jobs() -> None:
    columns = ["study_uid", "model", "model_version", "input_digest", "revision"]
    with op.batch_alter_table("job", naming_convention=NAMES) as table:
        table.drop_constraint(NAMES["uq"], type_="unique")
        table.create_unique_constraint("job_of_revision", columns)
