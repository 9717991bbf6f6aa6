"""What is written as bytes is what highdicom would have made of it, attribute by attribute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import highdicom.sr as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from overread.domain.card import Label
from overread.domain.codes import Code
from overread.domain.findings import Measurement, Segment
from overread.domain.result import Result
from overread.encode import content, explicit, groups, identity, report_tree
from overread.encode.codes import coded, site_of
from overread.encode.layers import Place
from overread.encode.report import report_header, source_evidence, write_report
from overread.encode.reread import readable
from overread.encode.sources import read_sources
from overread.ports import Read

from .conftest import ABNORMAL, LEFT, LUNG, NODULE

Reading = Callable[..., Read]
SEGMENTATION = Result("seg", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.9", "1.2.8", "1.2.7", "", "", "")
LABEL = Label(1, "Nodule", NODULE, ABNORMAL, region=LUNG, region_modifier=LEFT)
SEGMENT = Segment(
    1,
    LABEL,
    "Nodüle 1",
    (
        Measurement(Code("118565006", "SCT", "Volume"), 1 / 3, Code("ml", "UCUM", "milliliter")),
        Measurement(
            Code("a-code-of-more-than-16-characters", "99TEST", "Long"),
            -1e-7,
            Code("1", "UCUM", "no units"),
            Code("373098007", "SCT", "Mean"),
        ),
    ),
)
POINTS = np.array([[1.0, 2.0], [3.5, 2.0], [3.5, 6.0], [1.0, 2.0]])


def items(data: bytes) -> list[Dataset]:
    """Content items as data sets."""
    utf_8 = explicit.text(0x00080005, b"CS", "ISO_IR 192")
    return list(readable(utf_8 + explicit.sequence(content.CONTENT, data)).ContentSequence)


def same(ours: Iterable[bytes], theirs: Iterable[Dataset]) -> None:
    ours, theirs = items(b"".join(ours)), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        copied = Dataset()
        copied.update(dict(b.items()))
        assert plain(a) == plain(copied)


def plain(item: Dataset) -> str:
    """All attributes in words: classes of data sets differ, what they hold must not."""
    return str(item)


def algorithm(read: Read) -> hd.AlgorithmIdentification:
    made_by = identity.maker(read.card)
    return hd.AlgorithmIdentification(made_by.model, made_by.version, manufacturer=made_by.manufacturer)


def described(read: Read) -> dict[str, object]:
    site = site_of(LABEL)
    assert site is not None
    return {
        "tracking_identifier": hd.TrackingIdentifier(identity.tracking_uid(read, 1), SEGMENT.title),
        "finding_type": coded(LABEL.type),
        "finding_category": coded(LABEL.category),
        "algorithm_id": algorithm(read),
        "finding_sites": [hd.FindingSite(coded(site[0]), laterality=coded(LEFT))],
        "measurements": [
            hd.Measurement(
                coded(m.name), m.value, coded(m.unit), derivation=coded(m.derivation) if m.derivation else None
            )
            for m in SEGMENT.measurements
        ],
    }


def test_a_planar_group_is_that_of_tid_1410(reading: Reading) -> None:
    read = reading()
    sources = read_sources(read.volume)
    uid = sources.references[2].sop_instance_uid
    region = hd.ImageRegion(
        hd.GraphicTypeValues.POLYLINE, POINTS, hd.SourceImageForRegion("1.2.840.10008.5.1.4.1.1.2", uid)
    )
    theirs = hd.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **described(read))
    same([groups.outlined(read, SEGMENT, groups.region(sources, 2, POINTS), None)], theirs)


def test_a_volumetric_group_is_that_of_tid_1411(reading: Reading) -> None:
    read = reading()
    sources = read_sources(read.volume)
    segment = hd.ReferencedSegment(
        SEGMENTATION.sop_class_uid,
        SEGMENTATION.sop_instance_uid,
        3,
        source_series=hd.SourceSeriesForSegmentation(sources.instances[0].series_uid),
    )
    theirs = hd.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **described(read))
    same([groups.volumetric(read, SEGMENT, Place(SEGMENTATION, 3), sources)], theirs)


def test_the_model_observes_as_a_device(reading: Reading) -> None:
    read = reading()
    made_by = identity.maker(read.card)
    device = hd.DeviceObserverIdentifyingAttributes(
        uid=made_by.device_uid,
        name=made_by.model,
        manufacturer_name=made_by.manufacturer,
        model_name=made_by.model,
        serial_number=made_by.serial,
    )
    language = hd.LanguageOfContentItemAndDescendants(hd.CodedConcept("en", "RFC5646", "English"))
    same(report_tree.observer(read), [*language, *hd.ObserverContext(codes.DCM.Device, device)])


def test_a_whole_document_is_highdicoms(reading: Reading, tmp_path: Path) -> None:
    read = reading()
    sources = read_sources(read.volume)
    draft = report_tree.Draft("sr-viewer", read, sources, {})
    header = report_header(read, sources, "sr-viewer", "role", None)
    tree = report_tree.tree(draft)
    evidence = content.evidence(sources.instances[0].study_uid, source_evidence(sources))
    write_report(header, tree, evidence, tmp_path / "ours.dcm")
    root = hd.ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = hd.ContentSequence.from_sequence(items(tree))
    theirs = hd.Comprehensive3DSR(
        evidence=sources.standins,
        content=root,
        is_complete=True,
        **{"series_instance_uid": "1.2", "series_number": 1, "sop_instance_uid": "1.3", "instance_number": 1},
    )
    ours = dcmread(tmp_path / "ours.dcm")
    for keyword in ("ContentSequence", "CurrentRequestedProcedureEvidenceSequence", "ContentTemplateSequence"):
        assert [*map(str, ours[keyword].value)] == [*map(str, theirs[keyword].value)], keyword
    of_a_document = {e.keyword for e in theirs} - {"HL7StructuredDocumentReferenceSequence"}
    assert of_a_document <= {e.keyword for e in ours}
    assert ours.ValueType == "CONTAINER"
