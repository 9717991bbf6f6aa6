"""What a PACS knows of its objects, and how it answers a Study Root C-FIND (PS3.4 C.2.2.2 and C.4.1)."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.multival import MultiValue

_STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
_SERIES = (
    "SeriesDate",
    "SeriesTime",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "SeriesInstanceUID",
    "SeriesNumber",
)
_IMAGE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "ContentDate", "ContentTime", "Rows", "Columns")
INDEXED = ("SpecificCharacterSet", *_STUDY, *_SERIES, *_IMAGE)

_LEVELS = {
    "STUDY": (_STUDY, "StudyInstanceUID"),
    "SERIES": ((*_STUDY, *_SERIES), "SeriesInstanceUID"),
    "IMAGE": ((*_STUDY, *_SERIES, *_IMAGE), "SOPInstanceUID"),
}
_CONTROL = {"QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle"}
_COUNTS = {"NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"}


class Catalogue:
    """Headers by SOP Instance UID; safe to use from several threads."""

    def __init__(self) -> None:
        self._headers: dict[str, Dataset] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        with self._lock:
            self._headers.clear()

    def add(self, header: Dataset) -> None:
        """Note an object by its header; the same UID replaces. Raises AttributeError without a SOP Instance UID."""
        with self._lock:
            self._headers[str(header.SOPInstanceUID)] = header

    def __len__(self) -> int:
        return len(self._headers)

    def find(self, question: Dataset) -> list[Dataset]:
        """The identifiers that answer ``question``, one for each study, series or image that matches.

        Raises ValueError when it has no QueryRetrieveLevel of the Study Root model."""
        level = str(question.get("QueryRetrieveLevel", ""))
        if level not in _LEVELS:
            raise ValueError(f"no query level {level!r}")
        keys, unique = _LEVELS[level]
        with self._lock:
            everything = list(self._headers.values())
        chosen: dict[str, Dataset] = {}
        for header in everything:
            if all(_matches(question, header, key) for key in keys):
                chosen.setdefault(str(header.get(unique, "")), header)
        answers = (_answer(question, header, keys, everything) for header in chosen.values())
        return [a for a in answers if _modalities_match(question, a)]


def _matches(question: Dataset, header: Dataset, key: str) -> bool:
    wanted = question.get(key)
    if wanted in (None, "") or (isinstance(wanted, MultiValue) and not wanted):
        return True
    held = str(header.get(key, ""))
    if dictionary_VR(key) in ("DA", "TM") and "-" in str(wanted):
        low, _, high = str(wanted).partition("-")
        return bool(held) and (not low or held >= low) and (not high or held <= high)
    options = wanted if isinstance(wanted, MultiValue) else [wanted]
    return any(_equals(str(option), held, key) for option in options)


def _equals(wanted: str, held: str, key: str) -> bool:
    if dictionary_VR(key) == "UI":
        return wanted == held
    pattern = wanted.replace("[", "[[]")
    if dictionary_VR(key) == "PN":
        return fnmatch.fnmatchcase(held.upper(), pattern.upper())
    return fnmatch.fnmatchcase(held, pattern)


def _answer(question: Dataset, header: Dataset, keys: Iterable[str], everything: list[Dataset]) -> Dataset:
    answer = Dataset()
    if "SpecificCharacterSet" in header:
        answer.SpecificCharacterSet = header.SpecificCharacterSet
    answer.QueryRetrieveLevel = question.QueryRetrieveLevel
    for element in question:
        key = keyword_for_tag(element.tag)
        if not key or key in _CONTROL:
            continue
        if key == "ModalitiesInStudy" or key in _COUNTS:
            setattr(answer, key, _summary(key, header, everything))
        elif key in keys and key in header:
            answer[key] = deepcopy(header[key])
        else:
            setattr(answer, key, [] if element.VR == "SQ" else None)
    return answer


def _summary(key: str, header: Dataset, everything: list[Dataset]) -> Any:
    study = [h for h in everything if h.StudyInstanceUID == header.StudyInstanceUID]
    if key == "ModalitiesInStudy":
        return sorted({str(h.Modality) for h in study if h.get("Modality")})
    if key == "NumberOfStudyRelatedSeries":
        return len({h.get("SeriesInstanceUID") for h in study})
    if key == "NumberOfStudyRelatedInstances":
        return len(study)
    return sum(h.get("SeriesInstanceUID") == header.get("SeriesInstanceUID") for h in study)


def _modalities_match(question: Dataset, answer: Dataset) -> bool:
    wanted = question.get("ModalitiesInStudy")
    if not wanted:
        return True
    options = {str(w) for w in wanted} if isinstance(wanted, MultiValue) else {str(wanted)}
    held = answer.ModalitiesInStudy
    return bool(options & ({str(h) for h in held} if isinstance(held, MultiValue) else {str(held)}))
