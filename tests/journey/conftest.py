"""A running service for tests from wire to wire; see house.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fixtures import service, tiny_models

__all__ = ["service", "tiny_models"]
