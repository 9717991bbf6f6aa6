"""Alembic's entry: migrations run on the connection, and in the transaction, that the ledger hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from overread.ledger import tables  # noqa: F401  the tables register themselves on import

context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
context.run_migrations()
