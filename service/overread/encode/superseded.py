"""What a reading replaces: the results of the model's earlier readings of the study.

A report names the report before it (Predecessor Documents Sequence, PS3.3 C.17.2). A segmentation has no such
attribute: it follows the one before it by series number, series description and content time, and the report says
which one counts.
"""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset

from overread.domain.result import Result
from overread.ports import Read

UNFIT = "unfit"
REPORTS = ("sr", "sr-viewer", "sr-data", UNFIT)


def predecessor(read: Read, kind: str, variant: str) -> Result | None:
    """The latest superseded report: of the same ``kind`` and ``variant``, or of any variant or kind when there was none
    of it. A notice that the study could not be analysed is one too."""
    reports = [r for r in read.superseded if r.kind in REPORTS]
    alike = kind if any(r.kind == kind for r in reports) else next((r.kind for r in reports), "")
    latest = [r for r in reports if r.kind == (UNFIT if reports[0].kind == UNFIT else alike)]
    return next((r for r in latest if r.variant == variant), latest[0] if latest else None)


def withdrawn(read: Read, variant: str, current: Collection[str]) -> list[Result]:
    """What a destination of ``variant`` may have that counts no longer; never what is among the ``current`` UIDs, nor
    what withdraws itself."""
    return [
        r
        for r in read.superseded
        if r.variant in ("", variant) and r.kind != "rejection" and r.sop_instance_uid not in current
    ]


def reference(result: Result) -> Dataset:
    """``result`` as a builder wants an object that is referred to."""
    dataset = Dataset()
    dataset.SOPClassUID = result.sop_class_uid
    dataset.SOPInstanceUID = result.sop_instance_uid
    dataset.SeriesInstanceUID = result.series_uid
    dataset.StudyInstanceUID = result.study_uid
    return dataset
