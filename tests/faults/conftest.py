"""The same fixtures as the journeys have, and the tools of this folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults"), str(TESTS / "journey"), str(TESTS / "unit" / "receive")]

from fixtures import service, tiny_models

__all__ = ["service", "tiny_models"]
