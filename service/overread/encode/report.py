"""Findings as a structured report: Comprehensive 3D SR, TID 1500, readable by viewers and by machines.

Each segment is a Planar ROI group (TID 1410). Its Image Region, the outline on the key slice, is what viewers draw; an
additional Referenced Segment (121191, DCM), which the template, being extensible, permits beside it, and the tracking
UID tie the numbers to the whole segment. Labels that were looked for and not found stand under Qualitative Evaluations:
``Absent`` for findings, ``Not visualized`` for anatomy, which may just lie outside the images. So a report without
findings has no measurement group at all and still says what was looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.card import ANATOMICAL_STRUCTURE, Label
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, identity, seal
from overread.encode.codes import ABSENT, NOT_VISUALIZED, QUALITATIVE_EVALUATIONS, coded, finding_site, procedure
from overread.encode.groups import group, region
from overread.encode.outline import key_outlines
from overread.encode.sources import Sources, read_sources
from overread.ports import Read


class ReportEncoder:
    """Makes a Comprehensive 3D SR Storage instance (1.2.840.10008.5.1.4.1.1.88.34), Explicit VR Little Endian."""

    kind = "sr"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.88.34"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:
        """Write ``sr.dcm``, referring to the segmentation among ``earlier`` when there is one.

        A report is always made. Raises Misplaced, and leaves no file, when an outline, a number or a reference does not
        read back as it should.
        """
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        segmentation = next((result for result in earlier if result.kind == "seg"), None)
        result = seal.save(_build(read, sources, segmentation), folder, self.kind)
        gate.pass_report(folder / result.path, read, sources, segmentation)
        return (result,)


def _build(read: Read, sources: Sources, segmentation: Result | None) -> Dataset:
    role = f"sr of {segmentation.sop_instance_uid}" if segmentation else "sr"
    report = Comprehensive3DSR(
        evidence=[*sources.standins, *([_evidence(segmentation)] if segmentation else [])],
        content=_root(read, sources, segmentation),
        is_complete=True,
        is_verified=False,
        **seal.header(read, sources, "sr", role),
    )
    seal.seal(report, read, sources)
    return report


def _evidence(result: Result) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = result.sop_class_uid
    dataset.SOPInstanceUID = result.sop_instance_uid
    dataset.SeriesInstanceUID = result.series_uid
    dataset.StudyInstanceUID = result.study_uid
    return dataset


def _root(read: Read, sources: Sources, segmentation: Result | None) -> ContainerContentItem:
    """The tree of TID 1500. It is put together here because the library's own insists on a measurement group."""
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence()
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(CodedConcept("en", "RFC5646", "English")))
    root.ContentSequence.extend(_observer(read))
    modality = procedure(str(sources.standins[0].Modality))
    root.ContentSequence.append(
        CodeContentItem(codes.DCM.ProcedureReported, modality, RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    if read.findings.segments:
        measurements = _container(CodedConcept.from_code(codes.DCM.ImagingMeasurements))
        outlines = key_outlines(read.findings.mask)
        for segment in read.findings.segments:
            if segment.value not in outlines:
                raise Misplaced(f"segment {segment.value} has no voxels")
            where = region(sources, *outlines[segment.value])
            measurements.ContentSequence.extend(group(read, segment, where, segmentation))
        root.ContentSequence.append(measurements)
    missing = [label for label in read.card.labels if label not in [s.label for s in read.findings.segments]]
    if missing:
        evaluations = _container(coded(QUALITATIVE_EVALUATIONS))
        evaluations.ContentSequence.extend(_not_found(label) for label in missing)
        root.ContentSequence.append(evaluations)
    return root


def _container(name: CodedConcept) -> ContainerContentItem:
    container = ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence()
    return container


def _observer(read: Read) -> ObservationContext:
    made_by = identity.maker(read.card)
    device = DeviceObserverIdentifyingAttributes(
        uid=made_by.device_uid,
        name=made_by.model,
        manufacturer_name=made_by.manufacturer,
        model_name=made_by.model,
        serial_number=made_by.serial,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _not_found(label: Label) -> CodeContentItem:
    answer = NOT_VISUALIZED if label.category.value == ANATOMICAL_STRUCTURE.value else ABSENT
    item = CodeContentItem(coded(label.type), coded(answer), RelationshipTypeValues.CONTAINS)
    site = finding_site(label)
    if site is not None:
        item.ContentSequence = ContentSequence([site])
    return item
