"""The tests beside real viewers talk to the same Orthanc as the journeys do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "journey")]
