"""Bytes at rest: instances exactly as they came, results before they leave."""

from __future__ import annotations

from overread.spool.files import Spool, Stored

__all__ = ["Spool", "Stored"]
