"""One segment as a measurement group: where it is, what it is, and its numbers (TID 1410, TID 1419)."""

from __future__ import annotations

from highdicom.sr import (
    AlgorithmIdentification,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes

from overread.domain import findings
from overread.encode import identity
from overread.encode.codes import coded, finding_site
from overread.encode.layers import Place
from overread.encode.outline import Points
from overread.encode.sources import Sources
from overread.ports import Read


def group(
    read: Read, segment: findings.Segment, region: ImageRegion, place: Place | None
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """The group of ``segment`` outlined by ``region``; refers to its segment at ``place`` when it has one."""
    made_by = identity.maker(read.card)
    site = finding_site(segment.label)
    made = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(identity.tracking_uid(read, segment.value), segment.title),
        referenced_region=region,
        finding_type=coded(segment.label.type),
        finding_category=coded(segment.label.category),
        algorithm_id=AlgorithmIdentification(made_by.model, made_by.version, manufacturer=made_by.manufacturer),
        finding_sites=[site] if site is not None else None,
        measurements=[_measurement(m) for m in segment.measurements],
    )
    if place is not None:
        made[0].ContentSequence.append(
            ImageContentItem(
                codes.DCM.ReferencedSegment,
                place.result.sop_class_uid,
                place.result.sop_instance_uid,
                referenced_segment_numbers=place.number,
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
        )
    return made


def region(sources: Sources, k: int, points: Points) -> ImageRegion:
    """The closed line ``points`` (n, 2), (column, row), on source slice ``k``."""
    source = sources.standins[k]
    reference = SourceImageForRegion(str(source.SOPClassUID), str(source.SOPInstanceUID))
    return ImageRegion(GraphicTypeValues.POLYLINE, points, reference)


def _measurement(number: findings.Measurement) -> Measurement:
    derivation = coded(number.derivation) if number.derivation else None
    return Measurement(coded(number.name), number.value, coded(number.unit), derivation=derivation)
