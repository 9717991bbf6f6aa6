"""A DICOM object that overread made, and its way to a destination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Result:
    """One Part 10 file in the spool. ``path`` is relative to the spool; ``digest`` the SHA-256 of the file."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str


class DeliveryState(StrEnum):
    """Where a delivery is; DROPPED means that a later result replaced it before it left."""

    PENDING = "PENDING"  # -> SENT, FAILED, DROPPED
    SENT = "SENT"  # -> VERIFIED, or back to PENDING when the proof is not found
    VERIFIED = "VERIFIED"
    FAILED = "FAILED"
    DROPPED = "DROPPED"
