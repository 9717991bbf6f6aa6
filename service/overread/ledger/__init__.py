"""State at rest: SQLModel tables on SQLite or PostgreSQL, moved by compare-and-set, every move with its event row."""

from __future__ import annotations

from overread.ledger.store import Ledger, open_ledger

__all__ = ["Ledger", "open_ledger"]
