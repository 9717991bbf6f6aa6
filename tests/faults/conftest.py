"""The same fixtures as the journeys have, and the tools of this folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults"), str(TESTS / "journey"), str(TESTS / "unit" / "receive")]

from fixtures import service, tiny_models
from keeping import card, events, house, pool, volume

__all__ = ["card", "events", "house", "pool", "service", "tiny_models", "volume"]
