"""Whether one series suits one model, and the reason in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import UID

from overread.domain.candidates import Candidate, FrameReader, Headers, candidates
from overread.domain.card import Accepts, Card
from overread.domain.errors import Unfit
from overread.domain.geometry import Stack, plane_of, series_digest
from overread.domain.study import Instance, Series

PROCESSING_EQUIPMENT = "109102"
RESULT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture",
    "1.2.840.10008.5.1.4.1.1.481.3": "an RT structure set",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose distribution",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "a whole-slide microscopy image",
    "1.2.840.10008.5.1.4.1.1.4.2": "an MR spectrum",
}
STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
PRESENTATION_STATES = "1.2.840.10008.5.1.4.1.1.11."
OWN_MANUFACTURER = "overread"


@dataclass(frozen=True)
class Verdict:
    """``stack`` is there when the series fits; ``reason`` says why, or why not.

    ``unfit`` names the input of a series that is of the model's kind, but not fit to be read: it has gaps, say.
    ``part`` tells which of the volumes in the series is meant, where there are several.
    """

    series: Series
    reason: str
    stack: Stack | None = None
    unfit: str = ""
    part: str = ""


def judge(series: Series, card: Card, reader: FrameReader | None = None) -> Verdict:
    """Judge one series for one model by the first of its volumes that fits, or by the first if none does."""
    verdicts = judge_all(series, card, reader)
    return next((v for v in verdicts if v.stack), verdicts[0])


def judge_all(series: Series, card: Card, reader: FrameReader | None = None) -> list[Verdict]:
    """Judge every volume of one series (phases, echoes, films) for one model."""
    images = [i for i in series.instances if not i.is_localizer]
    reason = not_an_image(series.instances) or next(_objections(series, images, card.accepts), "")
    if reason:
        return [Verdict(series, reason)]
    try:
        found = candidates(images, card.accepts.kind, reader or Headers())
    except Unfit as error:
        return [Verdict(series, str(error), unfit=series_digest(series.instances))]
    left_out = len(series.instances) - len(images)
    return [_verdict(series, candidate, card.accepts, left_out) for candidate in found]


def _verdict(series: Series, candidate: Candidate, accepts: Accepts, localizers: int) -> Verdict:
    part = candidate.title
    reason = next(_objections_to(candidate, accepts), "")
    if reason:
        return Verdict(series, reason, part=part)
    try:
        stacked = candidate.stack(accepts)
    except Unfit as error:
        return Verdict(series, str(error), unfit=series_digest(series.instances), part=part)
    reason = _wrong_extent(stacked, accepts)
    if reason:
        return Verdict(series, reason, unfit=stacked.digest(), part=part)
    return Verdict(series, _described(stacked, candidate, localizers), stacked, part=part)


def _described(stacked: Stack, candidate: Candidate, localizers: int) -> str:
    count = len(stacked.instances)
    told = {
        "volume": f"{count} slices every {stacked.spacing_mm[0]:.2f} mm",
        "frames": f"{count} frames",
        "image": "one image",
    }[stacked.kind]
    note = f", {localizers} localizer left out" if localizers else ""
    return told + note + (f", {candidate.left_out} identical images left out" if candidate.left_out else "")


def not_an_image(instances: Sequence[Instance]) -> str:
    """Why these are no images that a scanner made; empty when they are."""
    return next(_foreign(instances), "")


def _foreign(instances: Sequence[Instance]) -> Iterator[str]:
    first = instances[0]
    if first.sop_class_uid in RESULT_CLASSES:
        yield f"it is {RESULT_CLASSES[first.sop_class_uid]}, not a scan"
    if first.sop_class_uid.startswith(STRUCTURED_REPORTS):
        yield "it is a structured report, not a scan"
    if first.sop_class_uid.startswith(PRESENTATION_STATES):
        yield "it is a presentation state, not a scan"
    if not any(i.rows and i.columns for i in instances):
        yield f"it holds no image ({UID(first.sop_class_uid).name})"
    if any(i.manufacturer.lower() == OWN_MANUFACTURER and i.image_type[:1] != ("ORIGINAL",) for i in instances):
        yield "it was made by overread; results are never read again"
    if any(_made_by_algorithm(i) for i in instances):
        yield "it was made by processing software from other images (derived, with processing equipment)"


def _made_by_algorithm(instance: Instance) -> bool:
    derived = bool(instance.image_type) and instance.image_type[0] == "DERIVED"
    return derived and PROCESSING_EQUIPMENT in instance.equipment_purposes


def _objections(series: Series, images: list[Instance], accepts: Accepts) -> Iterator[str]:
    if series.modality != accepts.modality:
        yield f"its modality is {series.modality or 'not given'}, the model reads {accepts.modality}"
    if not images:
        yield "it is a localizer"
    foreign = [i for i in images if i.sop_class_uid not in accepts.sop_classes]
    if foreign:
        yield f"{len(foreign)} of {len(images)} instances have a SOP Class that the model does not read"
    part = images[0].body_part.upper()
    if accepts.body_parts and part and not any(p.upper() in part for p in accepts.body_parts):
        yield f"its body part is {part}, the model reads {' or '.join(accepts.body_parts)}"


def _objections_to(candidate: Candidate, accepts: Accepts) -> Iterator[str]:
    count = len(candidate.frames)
    if accepts.kind == "volume":
        plane = plane_of(candidate.frames[0])
        if accepts.plane not in ("any", plane):
            yield f"its plane is {plane}, the model reads {accepts.plane}"
    elif accepts.kind == "image":
        return
    what = "slices" if accepts.kind == "volume" else "frames"
    if count < accepts.min_slices:
        yield f"it has {count} {what}, the model needs {accepts.min_slices}"
    if count > accepts.max_slices:
        yield f"it has {count} {what}, the model takes {accepts.max_slices} at most"


def _wrong_extent(stacked: Stack, accepts: Accepts) -> str:
    if stacked.kind != "volume":
        return ""
    spacing = stacked.spacing_mm[0]
    length = spacing * len(stacked.instances)
    if spacing > accepts.max_slice_spacing_mm:
        return f"its slices are {spacing:.2f} mm apart, the model takes {accepts.max_slice_spacing_mm:g} mm at most"
    if length < accepts.min_length_mm:
        return f"it covers {length:.0f} mm, the model needs {accepts.min_length_mm:g} mm"
    return ""
