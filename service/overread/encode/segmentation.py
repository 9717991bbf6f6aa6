"""A mask as a DICOM Segmentation: BINARY, on the source slices, one segment for each thing found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.findings import Segment
from overread.domain.result import Result
from overread.encode import gate, identity, seal
from overread.encode.codes import coded
from overread.encode.sources import Sources, read_sources
from overread.ports import Read


class SegmentationEncoder:
    """Makes a Segmentation Storage instance (1.2.840.10008.5.1.4.1.1.66.4), Explicit VR Little Endian."""

    kind = "seg"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.66.4"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``seg.dcm``; nothing when nothing was found, since an empty segmentation says nothing and is refused by
        viewers.

        Raises Misplaced, and leaves no file, when what was written does not read back as the mask on its slices or when
        the slices have no frame of reference.
        """
        gate.require_consistent(read)
        if not read.findings.mask.any():
            return ()
        sources = read_sources(read.volume)
        if not sources.headers[0].get("FrameOfReferenceUID"):
            raise Misplaced(
                "the source slices have no FrameOfReferenceUID; no segmentation can be placed in their space"
            )
        result = seal.save(_build(read, sources), folder, self.kind)
        gate.pass_segmentation(folder / result.path, read, sources)
        return (result,)


def _build(read: Read, sources: Sources) -> Dataset:
    segmentation = Segmentation(
        source_images=sources.standins,
        pixel_array=read.findings.mask,
        segmentation_type="BINARY",
        segment_descriptions=[_describe(segment, read) for segment in read.findings.segments],
        omit_empty_frames=True,
        content_label="SEGMENTATION",
        content_description=identity.series_description(read.card, "seg"),
        **seal.header(read, sources, "seg", "seg"),
    )
    _pin_dimensions(segmentation, identity.uid(read.key, "seg dimensions"))
    seal.seal(segmentation, read, sources)
    return segmentation


def _describe(segment: Segment, read: Read) -> SegmentDescription:
    label = segment.label
    description = SegmentDescription(
        segment_number=segment.value,
        segment_label=segment.title.replace("\\", "/")[: identity.LONG_STRING],
        segmented_property_category=coded(label.category),
        segmented_property_type=coded(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=seal.algorithm(read),
        tracking_uid=identity.tracking_uid(read, segment.value),
        tracking_id=segment.title.replace("\\", "/")[: identity.LONG_STRING],
        anatomic_regions=[coded(label.region)] if label.region else None,
        display_color=CIELabColor.from_rgb(*label.color),
    )
    if label.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(label.modifier)]
    if label.region and label.region_modifier:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [coded(label.region_modifier)]
    return description


def _pin_dimensions(segmentation: Dataset, organization_uid: str) -> None:
    """The library draws a random UID for the organization of the dimensions; the reading's own is as unique."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization_uid
