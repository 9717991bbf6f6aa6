"""The canary: a generated study that goes the whole way every few minutes, and must reach no clinical system.

It is known by its UIDs, which all begin with one root of ours, so that nobody has to remember it.
"""

from __future__ import annotations

ROOT = "2.25.271828182845904523536028747135266249"
AE_TITLE = "OVERREAD_CANARY"
PATIENT_ID, PATIENT_NAME = "OVERREAD-CANARY", "Canary^Overread"
DESCRIPTION = "overread canary: generated, no patient"
_MARK = "canary "


def study_uid(at: float) -> str:
    """The Study Instance UID of a canary that starts at ``at`` (seconds since the epoch)."""
    return f"{ROOT}.{int(at)}"


def is_canary(uid: str) -> bool:
    """Whether a Study Instance UID is that of a canary."""
    return uid.startswith(f"{ROOT}.")


def reserved(kind: str) -> str:
    """A kind of result as a destination takes it that is for canaries alone."""
    return _MARK + kind


def kind_in(kind: str, study: str) -> str:
    """A kind of result as it counts in a study: destinations of patients take none of a canary, and the other way."""
    return reserved(kind) if is_canary(study) else kind
