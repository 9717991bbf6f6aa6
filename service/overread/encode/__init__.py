"""Findings become DICOM: one file and one line of ``ENCODERS`` for each kind of result.

A SEG says where, a Comprehensive 3D SR (TID 1500) says what and how much; both name the model that made them, carry
the source's patient and study, and are read back and compared with the source before they count as written.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from overread.domain.errors import ConfigError
from overread.ports import Encoder

ENCODERS: dict[str, str] = {
    "seg": "overread.encode.segmentation:SegmentationEncoder",
    "map": "overread.encode.maps:MapEncoder",
    "image": "overread.encode.derived:ImageEncoder",
    "gsps": "overread.encode.presentation:PresentationEncoder",
    "rtstruct": "overread.encode.structures:StructureEncoder",
    "sc": "overread.encode.capture:CaptureEncoder",
    "pdf": "overread.encode.document:DocumentEncoder",
    "ko": "overread.encode.keyobjects:KeyObjectEncoder",
    "sr-viewer": "overread.encode.report:ViewerReportEncoder",
    "sr-data": "overread.encode.report:DataReportEncoder",
    "sr": "overread.encode.report:ReportEncoder",
    "rejection": "overread.encode.rejection:RejectionEncoder",
}
GROUP = "overread.encoders"


def encoders(kinds: Iterable[str]) -> tuple[Encoder, ...]:
    """The encoders of ``kinds``, in the table's order, so that a report comes after the segmentation it refers to.

    Kinds of other distributions (entry points of ``overread.encoders``) follow by name. Raises ConfigError for a kind
    that nobody offers.
    """
    wanted = set(kinds)
    others = {e.name: e for e in entry_points(group=GROUP) if e.name not in ENCODERS}
    unknown = sorted(wanted - set(ENCODERS) - set(others))
    if unknown:
        known = ", ".join([*ENCODERS, *sorted(others)])
        raise ConfigError(f"there is no result of kind {unknown[0]!r}; known kinds: {known}")
    ours = [_load(ENCODERS[kind]) for kind in ENCODERS if kind in wanted]
    return (*ours, *(cast(Encoder, others[kind].load()()) for kind in sorted(wanted & set(others))))


def _load(target: str) -> Encoder:
    module, _, name = target.partition(":")
    return cast(Encoder, getattr(import_module(module), name)())
