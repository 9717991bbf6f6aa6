"""Findings as a structured report: Comprehensive 3D SR, TID 1500, readable by viewers and by machines.

Each segment is a Planar ROI group (TID 1410). Its Image Region, the outline on the key slice, is what viewers draw; an
additional Referenced Segment (121191, DCM), which the template, being extensible, permits beside it, and the tracking
UID tie the numbers to the whole segment. Labels that were looked for and not found stand under Qualitative Evaluations:
``Absent`` for findings, ``Not visualized`` for anatomy, which may just lie outside the images. So a report without
findings has no measurement group at all and still says what was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
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
from overread.encode.boxes import box_group, judgement_item
from overread.encode.codes import ABSENT, NOT_VISUALIZED, QUALITATIVE_EVALUATIONS, coded, finding_site, procedure
from overread.encode.groups import group, region
from overread.encode.layers import Place, places
from overread.encode.outline import Points, key_outlines
from overread.encode.sources import Sources, read_sources
from overread.encode.superseded import predecessor, reference
from overread.ports import Read


class ReportEncoder:
    """Makes a Comprehensive 3D SR Storage instance (1.2.840.10008.5.1.4.1.1.88.34), Explicit VR Little Endian."""

    kind = "sr"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.88.34"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:
        """Write ``sr….dcm``: one for each variant of the segmentations among ``earlier``, referring to these, or one
        without references.

        A report is always made. Raises Misplaced, and leaves the file, when an outline, a number or a reference does
        not read back as it should.
        """
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        made = []
        for variant in list(dict.fromkeys(r.variant for r in earlier if r.kind == "seg")) or [""]:
            found = places(read.findings, earlier, variant)
            described = {"alternative": "sr" if variant else "", "variant": variant}
            described["provenance"] = str(read.provenance)
            report, name = _build(read, sources, found, variant), seal.file_name(self.kind, variant)
            result = seal.save(report, folder, name, self.kind, **described)
            gate.pass_report(folder / result.path, read, sources, found)
            made.append(result)
        return made


def _build(read: Read, sources: Sources, found: Mapping[int, Place], variant: str) -> Dataset:
    before = predecessor(read, variant)
    role = f"sr {variant}" + (f" after {before.sop_instance_uid}" if before else "")
    segmentations = {place.result.sop_instance_uid: place.result for place in found.values()}
    report = Comprehensive3DSR(
        evidence=[*sources.standins, *(reference(result) for result in segmentations.values())],
        content=_root(read, sources, found),
        is_complete=True,
        is_verified=False,
        previous_versions=[reference(before)] if before else None,
        **seal.header(read, sources, "sr", role),
    )
    seal.seal(report, read, sources)
    return report


def _root(read: Read, sources: Sources, found: Mapping[int, Place]) -> ContainerContentItem:
    """The tree of TID 1500. It is put together here because the library's own insists on a measurement group."""
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence()
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(CodedConcept("en", "RFC5646", "English")))
    root.ContentSequence.extend(observer(read))
    modality = procedure(str(sources.standins[0].Modality))
    root.ContentSequence.append(
        CodeContentItem(codes.DCM.ProcedureReported, modality, RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    measurements = _container(CodedConcept.from_code(codes.DCM.ImagingMeasurements))
    measurements.ContentSequence.extend(_groups(read, sources, found))
    evaluations = _container(coded(QUALITATIVE_EVALUATIONS))
    evaluations.ContentSequence.extend(judgement_item(judged) for judged in read.findings.judgements)
    evaluations.ContentSequence.extend(_not_found(label) for label in _missing(read))
    root.ContentSequence.extend(part for part in (measurements, evaluations) if part.ContentSequence)
    return root


def _groups(read: Read, sources: Sources, found: Mapping[int, Place]) -> Iterator[ContentItem]:
    outlines: dict[int, tuple[int, Points]] = {}
    for layer in read.findings.layers if read.findings.segments else ():
        outlines |= key_outlines(layer)
    for segment in read.findings.segments:
        if segment.value not in outlines:
            raise Misplaced(f"segment {segment.value} has no voxels")
        yield from group(read, segment, region(sources, *outlines[segment.value]), found.get(segment.value))
    for number, box in enumerate(read.findings.detections, 1):
        yield from box_group(read, sources, number, box)


def _missing(read: Read) -> list[Label]:
    findings = read.findings
    told = [s.label for s in findings.segments] + [d.label for d in findings.detections]
    told += [judged.label for judged in findings.judgements]
    return [label for label in read.card.labels if label not in told]


def _container(name: CodedConcept) -> ContainerContentItem:
    container = ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence()
    return container


def observer(read: Read) -> ObservationContext:
    """The model as the device that observed."""
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
