"""What a model or program says, without what may name the patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pydicom

PERSONAL = (
    *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "PerformingPhysicianName", "InstitutionName"),
)
_UID = re.compile(r"\b[0-2](?:\.\d+){3,}\b")
_LONG_NUMBER = re.compile(r"\d{6,}")


def discreet(text: str, sources: Iterable[Path]) -> str:
    """``text`` on one line, without UIDs, long numbers, and what is personal in the first source's header."""
    line = " ".join(text.split())
    for word in _personal(sources):
        line = re.sub(_pattern(word), "…", line, flags=re.IGNORECASE)
    return _LONG_NUMBER.sub("…", _UID.sub("…", line))


def _pattern(word: str) -> str:
    """Wherever it stands; a word of two letters only by itself, for it is in half of all others."""
    return re.escape(word) if len(word) > 2 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"


def _personal(sources: Iterable[Path]) -> list[str]:
    found: set[str] = set()
    for path in list(sources)[:1]:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(PERSONAL))
        except OSError:
            continue  # it has been removed meanwhile
        for keyword in PERSONAL:
            value = str(header.get(keyword, "") or "")
            found |= {value, *re.split(r"[\^=\s\\]+", value)}
    return sorted((word for word in found if len(word) > 1), key=len, reverse=True)
