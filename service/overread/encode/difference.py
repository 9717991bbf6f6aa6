"""In what two objects differ, element by element, told without values: they may be a patient's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from overread.encode.reread import reread
from overread.encode.sources import unperturbed


def differences(stored: Path, again: Path) -> Iterator[str]:
    """Each element in which two Part 10 files differ; pixels are compared as pixels, however they are packed.

    Raises ValueError and pydicom's errors when a file cannot be read.
    """
    with unperturbed(), reread(stored) as a, reread(again) as b:
        if a.meta.TransferSyntaxUID != b.meta.TransferSyntaxUID:
            yield "TransferSyntaxUID"
        yield from _elements(a.header, b.header, "")
        if a.groups != b.groups:
            yield "PerFrameFunctionalGroupsSequence"
        if a.content != b.content:
            yield "ContentSequence"
        if a.evidence != b.evidence:
            yield "CurrentRequestedProcedureEvidenceSequence"
        pairs = zip_longest(a.frames, b.frames)
        wrong = sum(not x or not y or x.first != y.first or not np.array_equal(x.pixels, y.pixels) for x, y in pairs)
        if wrong:
            yield f"PixelData ({wrong} frames)"


def _elements(a: Dataset, b: Dataset, where: str) -> Iterator[str]:
    for tag in sorted({*a.keys(), *b.keys()}):
        name = where + ((a if tag in a else b)[tag].keyword or str(tag))
        if tag not in b:
            yield f"{name} (not made again)"
        elif tag not in a:
            yield f"{name} (not there before)"
        elif a[tag].VR == "SQ" and b[tag].VR == "SQ":
            yield from _items(a[tag], b[tag], name)
        elif a[tag].value != b[tag].value:
            yield name


def _items(a: DataElement, b: DataElement, name: str) -> Iterator[str]:
    if len(a.value) != len(b.value):
        yield f"{name} ({len(a.value)} items before, {len(b.value)} now)"
        return
    for n, (x, y) in enumerate(zip(a.value, b.value, strict=True), 1):
        yield from _elements(x, y, f"{name}[{n}].")
