"""How urgent a reading is beside others on the same device."""

from __future__ import annotations

from enum import StrEnum


class Pace(StrEnum):
    """URGENT readings have the device to themselves: USUAL ones rest meanwhile. OVERDUE ones rest for nobody. SPARE is
    what is only loaded ahead of need: it makes way for every reading."""

    URGENT = "urgent"
    USUAL = "usual"
    OVERDUE = "overdue"
    SPARE = "spare"
