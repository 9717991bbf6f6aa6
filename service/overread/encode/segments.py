"""What a segment is, as a Segmentation says it (PS3.3 C.8.20.4)."""

from __future__ import annotations

from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription

from overread.domain.findings import Segment
from overread.encode import identity, seal
from overread.encode.codes import coded
from overread.ports import Read


def describe(segment: Segment, number: int, read: Read) -> SegmentDescription:
    """Segment ``number`` of a segmentation: category, type, modifiers, region and laterality as codes, a colour, the
    tracking UID that its measurements share, and the algorithm that found it."""
    label = segment.label
    title = segment.title.replace("\\", "/")[: identity.LONG_STRING]
    description = SegmentDescription(
        segment_number=number,
        segment_label=title,
        segmented_property_category=coded(label.category),
        segmented_property_type=coded(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=seal.algorithm(read),
        tracking_uid=identity.tracking_uid(read, segment.value),
        tracking_id=title,
        anatomic_regions=[coded(label.region)] if label.region else None,
        display_color=CIELabColor.from_rgb(*label.color),
    )
    if label.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(label.modifier)]
    if label.region and label.region_modifier:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [coded(label.region_modifier)]
    return description
