"""How urgent a reading is beside others on the same device."""

from __future__ import annotations

from enum import StrEnum


class Pace(StrEnum):
    """URGENT readings have the device to themselves: others rest meanwhile, or make way where there is no memory for
    both. OVERDUE ones make way once. SPARE is what is only loaded ahead of need: it makes way for every reading."""

    URGENT = "urgent"
    USUAL = "usual"
    OVERDUE = "overdue"
    SPARE = "spare"
