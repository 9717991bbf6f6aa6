"""Measurement groups: where something is, what it is, and its numbers (TID 1410, 1411, 1419, 1501)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overread.domain.card import Label
from overread.domain.codes import Code
from overread.domain.findings import Detection, Judgement, Measurement, Segment
from overread.encode import content, identity
from overread.encode.boxes import percent, rectangle, tracking_uid, whole_image
from overread.encode.codes import (
    ABSENT,
    CERTAINTY,
    FINDING,
    FINDING_CATEGORY,
    FINDING_SITE,
    LATERALITY,
    PERCENT,
    PRESENT,
    SUMMARY,
    TOPOGRAPHICAL_MODIFIER,
    WITHOUT_FINDINGS,
    site_of,
)
from overread.encode.content import HAS_CONCEPT_MOD, HAS_OBS_CONTEXT, HAS_PROPERTIES, SELECTED_FROM
from overread.encode.layers import Place
from overread.encode.outline import Points
from overread.encode.sources import Sources
from overread.ports import Read

GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
REFERENCED_SEGMENT = Code("121191", "DCM", "Referenced Segment")
SOURCE_SERIES = Code("121232", "DCM", "Source Series for Segmentation")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
SOURCE = Code("260753009", "SCT", "Source")
DERIVATION = Code("121401", "DCM", "Derivation")
_ALGORITHM = (  # TID 4019
    Code("111001", "DCM", "Algorithm Name"),
    Code("111003", "DCM", "Algorithm Version"),
    Code("122405", "DCM", "Algorithm Manufacturer"),
)
PLANAR, VOLUMETRIC, WHOLE = "1410", "1411", "1501"


def outlined(read: Read, segment: Segment, region: bytes, place: Place | None) -> bytes:
    """The group of ``segment`` (TID 1410), outlined by ``region``; ties itself to its segment at ``place``, too, when
    it is given one: the template is extensible."""
    numbers = [_measurement(m) for m in segment.measurements]
    tied = [_segment(place)] if place is not None else []
    about = _about(read, identity.tracking_uid(read, segment.value), segment.title, segment.label)
    return content.container(GROUP, [*about, *numbers, region, *tied], template=PLANAR)


def volumetric(read: Read, segment: Segment, place: Place, sources: Sources) -> bytes:
    """The group of ``segment`` as a whole (TID 1411): its segment, and the series that it was found in."""
    about = _about(read, identity.tracking_uid(read, segment.value), segment.title, segment.label)
    series = content.uid(SOURCE_SERIES, sources.instances[0].series_uid)
    numbers = [_measurement(m) for m in segment.measurements]
    return content.container(GROUP, [*about, *numbers, _segment(place), series], template=VOLUMETRIC)


def boxed(read: Read, sources: Sources, number: int, found: Detection) -> bytes:
    """The group (TID 1410) of detection ``number``, counted from 1: a rectangle on its middle slice, its score, and
    what was measured of it."""
    frame = region(sources, *rectangle(found, read.volume.stack.shape))
    score = content.number(CERTAINTY, percent(found.score), PERCENT)
    about = _about(read, tracking_uid(read, number), found.title, found.label)
    measured = [_measurement(m) for m in found.measurements]
    return content.container(GROUP, [*about, score, *measured, frame], template=PLANAR)


def judged(read: Read, number: int, judgement: Judgement, frame: bytes = b"") -> bytes:
    """The group of class ``number``, counted from 1: of the whole input (TID 1501), or (TID 1410) of an image, around
    which ``frame`` goes, so that viewers that draw show it."""
    about = _about(read, judgement_uid(read, number), judgement.label.name, judgement.label)
    said = content.code(judgement.label.type, PRESENT if judgement.chosen else ABSENT)
    probability = content.number(CERTAINTY, percent(judgement.probability), PERCENT)
    inside = [*about, probability, said, *([frame] if frame else [])]
    return content.container(GROUP, inside, template=PLANAR if frame else WHOLE)


def nothing(read: Read, frame: bytes) -> bytes:
    """The group that says, around an image, that nothing was found."""
    told = [
        content.text(TRACKING_IDENTIFIER, "No finding", HAS_OBS_CONTEXT),
        content.uid(TRACKING_UID, nothing_uid(read), HAS_OBS_CONTEXT),
        *algorithm(read),
        content.code(SUMMARY, WITHOUT_FINDINGS),
        frame,
    ]
    return content.container(GROUP, told, template=PLANAR)


def evaluation(judgement: Judgement) -> bytes:
    """Present or absent, with the probability and the place."""
    site = finding_site(judgement.label)
    probability = content.number(CERTAINTY, percent(judgement.probability), PERCENT, HAS_PROPERTIES)
    answer = PRESENT if judgement.chosen else ABSENT
    return content.code(judgement.label.type, answer, children=[probability, *([site] if site else [])])


def region(sources: Sources, k: int, points: Points) -> bytes:
    """The closed line ``points`` (n, 2), (column, row), on source slice ``k``."""
    kind, uid, frame = sources.references[k]
    return content.polyline(IMAGE_REGION, points, content.image(SOURCE, kind, uid, SELECTED_FROM, frame=frame))


def around(sources: Sources) -> bytes:
    """A frame around the middle slice."""
    shape = sources.volume.stack.shape
    return region(sources, shape[0] // 2, whole_image(shape))


def finding_site(label: Label) -> bytes:
    """The place of a label's things; empty when unknown."""
    site = site_of(label)
    if site is None:
        return b""
    where, side, part = site
    more = [content.code(LATERALITY, side, HAS_CONCEPT_MOD)] if side else []
    more += [content.code(TOPOGRAPHICAL_MODIFIER, part, HAS_CONCEPT_MOD)] if part else []
    return content.code(FINDING_SITE, where, HAS_CONCEPT_MOD, more)


def algorithm(read: Read) -> Iterator[bytes]:
    """Which algorithm it was (TID 4019): the equipment's model, version and manufacturer (IHE AIR, 3:6.5.3.1)."""
    made_by = identity.maker(read.card)
    for name, value in zip(_ALGORITHM, (made_by.model, made_by.version, made_by.manufacturer), strict=True):
        yield content.text(name, value, HAS_CONCEPT_MOD)


def judgement_uid(read: Read, number: int) -> str:
    """The tracking UID of class ``number``, counted from 1."""
    return identity.uid(read.key, f"tracking class {number}")


def nothing_uid(read: Read) -> str:
    """The tracking UID of having found nothing."""
    return identity.uid(read.key, "tracking nothing")


def _about(read: Read, uid: str, title: str, label: Label) -> Sequence[bytes]:
    site = finding_site(label)
    return [
        content.text(TRACKING_IDENTIFIER, title, HAS_OBS_CONTEXT),
        content.uid(TRACKING_UID, uid, HAS_OBS_CONTEXT),
        content.code(FINDING_CATEGORY, label.category),
        content.code(FINDING, label.type),
        *([site] if site else []),
        *algorithm(read),
    ]


def _segment(place: Place) -> bytes:
    result = place.result
    return content.image(REFERENCED_SEGMENT, result.sop_class_uid, result.sop_instance_uid, segment=place.number)


def _measurement(number: Measurement) -> bytes:
    derived = number.derivation
    more = [content.code(DERIVATION, derived, HAS_CONCEPT_MOD)] if derived else []
    return content.number(number.name, number.value, number.unit, children=more)
