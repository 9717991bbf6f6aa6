"""Content items of structured reports as bytes (PS3.3 C.17.3), Explicit VR Little Endian.

A report on a hundred segments has thousands of items; as data sets they cost seconds. Each function here returns one
item of a Content Sequence, with its children inside. A test compares them with highdicom's, attribute by attribute.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import format_number_as_ds

from overread.domain.codes import Code
from overread.encode import explicit

CONTAINS, HAS_PROPERTIES = "CONTAINS", "HAS PROPERTIES"
HAS_OBS_CONTEXT, HAS_ACQ_CONTEXT = "HAS OBS CONTEXT", "HAS ACQ CONTEXT"
HAS_CONCEPT_MOD, SELECTED_FROM = "HAS CONCEPT MOD", "SELECTED FROM"

CONTENT, EVIDENCE = 0x0040A730, 0x0040A375
_NAME, _VALUE, _UNITS = 0x0040A043, 0x0040A168, 0x004008EA
_SHORT_CODE = 16  # characters of a Code Value (PS3.3 8.1)


def container(
    name: Code, children: Iterable[bytes], *, relationship: str = CONTAINS, template: str = "", separate: bool = False
) -> bytes:
    """A CONTAINER; ``template`` is its Template Identifier (PS3.16)."""
    continuity = explicit.text(0x0040A050, b"CS", "SEPARATE" if separate else "CONTINUOUS")
    of = _template(template) if template else b""
    return _item("CONTAINER", name, relationship, after=continuity + of, children=children)


def code(name: Code, value: Code, relationship: str = CONTAINS, children: Iterable[bytes] = ()) -> bytes:
    """A CODE."""
    return _item("CODE", name, relationship, after=coded(_VALUE, value), children=children)


def text(name: Code, value: str, relationship: str = CONTAINS) -> bytes:
    """A TEXT."""
    return _item("TEXT", name, relationship, after=_text(0x0040A160, value))


def uid(name: Code, value: str, relationship: str = CONTAINS) -> bytes:
    """A UIDREF."""
    return _item("UIDREF", name, relationship, after=explicit.text(0x0040A124, b"UI", value))


def date(name: Code, value: str, relationship: str = CONTAINS) -> bytes:
    """A DATE, YYYYMMDD."""
    return _item("DATE", name, relationship, after=explicit.text(0x0040A121, b"DA", value))


def number(name: Code, value: float, unit: Code, relationship: str = CONTAINS, children: Iterable[bytes] = ()) -> bytes:
    """A NUM: a decimal string of 16 characters, and the number whole as Floating Point Value where it is no integer."""
    whole = b"" if isinstance(value, int) else explicit.element(0x0040A161, b"FD", struct.pack("<d", value))
    decimal = explicit.text(0x0040A30A, b"DS", str(value) if isinstance(value, int) else format_number_as_ds(value))
    measured = explicit.sequence(0x0040A300, explicit.item(coded(_UNITS, unit) + whole + decimal))
    return _item("NUM", name, relationship, after=measured, children=children)


def image(
    name: Code | None, sop_class_uid: str, sop_instance_uid: str, relationship: str = CONTAINS, **where: int
) -> bytes:
    """An IMAGE; ``where``: its ``frame``, or its ``segment``, counted from 1."""
    return _item("IMAGE", name, relationship, before=_reference(sop_class_uid, sop_instance_uid, **where))


def composite(name: Code | None, sop_class_uid: str, sop_instance_uid: str, relationship: str = CONTAINS) -> bytes:
    """A COMPOSITE: an object that is no image."""
    return _item("COMPOSITE", name, relationship, before=_reference(sop_class_uid, sop_instance_uid))


def polyline(name: Code, points: NDArray[np.float64], source: bytes, relationship: str = CONTAINS) -> bytes:
    """A SCOORD: ``points`` (n, 2), (column, row) as in PS3.3 C.18.6.1.2, on ``source``, an IMAGE selected from."""
    data = points.astype("<f4").tobytes()
    head = _head("SCOORD", name, relationship)
    graphic = explicit.element(0x00700022, b"FL", data) + explicit.text(0x00700023, b"CS", "POLYLINE")
    return explicit.item(head + explicit.sequence(CONTENT, source) + graphic)


def evidence(study_uid: str, series: dict[str, dict[str, str]]) -> bytes:
    """Current Requested Procedure Evidence Sequence (PS3.3 C.17.2): series UID → SOP Instance UID → SOP Class UID."""
    rows = b"".join(
        explicit.item(
            explicit.sequence(0x00081199, b"".join(_reference_item(kind, one) for one, kind in instances.items()))
            + explicit.text(0x0020000E, b"UI", series_uid)
        )
        for series_uid, instances in series.items()
    )
    study = explicit.sequence(0x00081115, rows) + explicit.text(0x0020000D, b"UI", study_uid)
    return explicit.sequence(EVIDENCE, explicit.item(study))


@lru_cache(maxsize=1024)
def coded(tag: int, concept: Code) -> bytes:
    """``concept`` as the only item of the sequence ``tag`` (PS3.3 8.8)."""
    short, long = _text(0x00080100, concept.value, b"SH"), _text(0x00080119, concept.value, b"UC")
    scheme = _text(0x00080102, concept.scheme, b"SH")
    meaning = _text(0x00080104, concept.meaning, b"LO")
    if len(concept.value) <= _SHORT_CODE:
        return explicit.sequence(tag, explicit.item(short + scheme + meaning))
    return explicit.sequence(tag, explicit.item(scheme + meaning + long))


def _item(
    kind: str,
    name: Code | None,
    relationship: str,
    *,
    before: bytes = b"",
    after: bytes = b"",
    children: Iterable[bytes] = (),
) -> bytes:
    """``before`` and ``after`` are elements below and above Relationship Type, each in the order of their tags."""
    inside = b"".join(children)
    content = explicit.sequence(CONTENT, inside) if inside else b""
    return explicit.item(before + _head(kind, name, relationship) + after + content)


@lru_cache(maxsize=1024)
def _head(kind: str, name: Code | None, relationship: str) -> bytes:
    named = coded(_NAME, name) if name is not None else b""
    return explicit.text(0x0040A010, b"CS", relationship) + explicit.text(0x0040A040, b"CS", kind) + named


@lru_cache(maxsize=16)
def _template(identifier: str) -> bytes:
    told = explicit.text(0x00080105, b"CS", "DCMR") + explicit.text(0x0040DB00, b"CS", identifier)
    return explicit.sequence(0x0040A504, explicit.item(told))


def _reference(sop_class_uid: str, sop_instance_uid: str, **where: int) -> bytes:
    return explicit.sequence(0x00081199, _reference_item(sop_class_uid, sop_instance_uid, **where))


def _reference_item(sop_class_uid: str, sop_instance_uid: str, *, frame: int = 0, segment: int = 0) -> bytes:
    told = explicit.text(0x00081150, b"UI", sop_class_uid) + explicit.text(0x00081155, b"UI", sop_instance_uid)
    if frame:
        told += explicit.text(0x00081160, b"IS", str(frame))
    if segment:
        told += explicit.element(0x0062000B, b"US", struct.pack("<H", segment))
    return explicit.item(told)


def _text(tag: int, value: str, vr: bytes = b"UT") -> bytes:
    data = value.encode()
    data += b" " * (len(data) % 2)
    if vr in (b"UT", b"UC"):
        return explicit.start(tag, vr, len(data)) + data
    return explicit.element(tag, vr, data)
