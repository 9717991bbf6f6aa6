"""A study knows to which of our AE titles it was sent, and a job how urgent that makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change the schema and keep what is in it."""
    op.add_column("study", sa.Column("called_aes", sa.String, nullable=False, server_default=""))
    op.add_column("job", sa.Column("called_aes", sa.String, nullable=False, server_default=""))
    op.add_column("job", sa.Column("urgency", sa.String, nullable=False, server_default="ROUTINE"))
    op.add_column("job", sa.Column("hint", sa.String, nullable=False, server_default=""))
