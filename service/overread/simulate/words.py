"""A TID 1500 report in words, read with nothing but its content tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

TRACKING_IDENTIFIER = "112039"
MEASUREMENT_GROUP = "125007"


def measurements(report: Path) -> Iterator[str]:
    """One line for each measurement group (PS3.16 TID 1500, TID 1410): its name and its numbers."""
    document = pydicom.dcmread(report)
    for group in _groups(document):
        name, numbers = "", []
        for item in group.ContentSequence:
            concept = item.ConceptNameCodeSequence[0]
            if concept.CodeValue == TRACKING_IDENTIFIER:
                name = str(item.TextValue)
            elif item.ValueType == "NUM" and item.MeasuredValueSequence:
                numbers.append(_number(item))
        yield f"{name}: {', '.join(numbers)}"


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        concept = child.get("ConceptNameCodeSequence")
        if concept and concept[0].CodeValue == MEASUREMENT_GROUP:
            yield child
        else:
            yield from _groups(child)


def _number(item: Dataset) -> str:
    measured = item.MeasuredValueSequence[0]
    unit = measured.MeasurementUnitsCodeSequence[0]
    name = str(item.ConceptNameCodeSequence[0].CodeMeaning)
    derived = [
        str(c.ConceptCodeSequence[0].CodeMeaning)
        for c in item.get("ContentSequence") or ()
        if c.ConceptNameCodeSequence[0].CodeValue == "121401"
    ]
    word = f"{derived[0]} {name}" if derived else name
    symbol = {"[hnsf'U]": "HU", "1": ""}.get(str(unit.CodeValue), str(unit.CodeValue))
    return f"{word.lower()} {float(measured.NumericValue):.1f} {symbol}".rstrip()
