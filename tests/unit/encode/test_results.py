"""What the encoders write: right content, valid for the validators, the same bytes for the same reading."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.errors import ConfigError
from overread.domain.result import Result
from overread.encode import encoders, identity
from overread.ports import Read

from .conftest import CARD, Change, complaints, digest, inflated, mask, tool

Reading = Callable[..., Read]


def encode(read: Read, folder: Path, *kinds: str) -> dict[str, Result]:
    results: list[Result] = []
    for encoder in encoders(kinds or ("seg", "sr")):
        results.extend(encoder.encode(read, folder, results))
    return {result.kind: result for result in results}


def test_the_segmentation_holds_the_mask_and_the_cards_codes(reading: Reading, out: Path) -> None:
    read = reading()
    encode(read, out, "seg")
    seg = highdicom.seg.segread(out / "seg.dcm")
    uids = [i.sop_instance_uid for i in read.volume.stack.instances]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(found, read.findings.mask)
    left, _, nodule, _ = seg.SegmentSequence
    assert left.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert nodule.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Left"
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [s.title for s in read.findings.segments]
    assert len({s.TrackingUID for s in seg.SegmentSequence}) == 4
    assert {s.SegmentAlgorithmType for s in seg.SegmentSequence} == {"AUTOMATIC"}
    assert left.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == CARD.version
    assert (seg.SeriesDescription, seg.SegmentationType) == ("Overread CT chest SEG", "BINARY")
    assert seg.SpecificCharacterSet == "ISO_IR 192"


def test_empty_slices_have_no_frame_and_all_slices_are_referenced(reading: Reading, out: Path) -> None:
    read = reading()
    encode(read, out, "seg")
    seg = dcmread(out / "seg.dcm")
    present = sum(int((read.findings.mask[k] == v).any()) for k in range(6) for v in (1, 2, 3, 4))
    assert int(seg.NumberOfFrames) == present
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6


def test_results_describe_their_files(reading: Reading, out: Path) -> None:
    for kind, result in encode(reading(), out).items():
        ds = dcmread(out / result.path)
        assert result.path == f"{kind}.dcm"
        assert result.digest == digest(out / result.path)
        assert (result.sop_class_uid, result.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
        assert (result.series_uid, result.study_uid) == (ds.SeriesInstanceUID, ds.StudyInstanceUID)
        assert result.transfer_syntax_uid == ds.file_meta.TransferSyntaxUID


def test_the_report_ties_each_group_to_an_outline_and_a_segment(reading: Reading, out: Path) -> None:
    read = reading()
    results = encode(read, out)
    seg = dcmread(out / "seg.dcm")
    report = highdicom.sr.srread(out / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == 4
    for group, segment, described in zip(groups, read.findings.segments, seg.SegmentSequence, strict=True):
        assert (group.tracking_identifier, group.tracking_uid) == (described.TrackingID, described.TrackingUID)
        assert group.roi is not None
        assert group.finding_type.value == segment.label.type.value
        (reference,) = [i for i in group[0].ContentSequence if i.name.value == "121191"]
        assert reference.referenced_sop_instance_uid == results["seg"].sop_instance_uid
        assert reference.referenced_segment_numbers == [segment.value]
        volume = group.get_measurements()[0]
        assert (volume.value, volume.unit.value) == (pytest.approx(segment.measurements[0].value, rel=1e-12), "ml")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    evidence = [s for study in report.CurrentRequestedProcedureEvidenceSequence for s in study.ReferencedSeriesSequence]
    assert sorted(len(s.ReferencedSOPSequence) for s in evidence) == [1, 6]


def test_nothing_found_is_a_report_without_groups_and_no_segmentation(reading: Reading, out: Path) -> None:
    results = encode(reading(found=np.zeros_like(mask())), out)
    assert list(results) == ["sr"]
    report = highdicom.sr.srread(out / "sr.dcm")
    assert report.content.get_planar_roi_measurement_groups() == []
    (evaluations,) = [i for i in report.content[0].ContentSequence if i.name.value == "C0034375"]
    assert evaluations.ContentSequence[0].value.meaning == "All algorithms succeeded; without findings"
    said = [(i.name.meaning, i.value.meaning) for i in evaluations.ContentSequence[1:-2]]
    assert said == [("Lung", "Not visualized"), ("Lung", "Not visualized"), ("Nodule", "Absent")]
    assert evaluations.ContentSequence[2].ContentSequence[0].ContentSequence[0].value.meaning == "Right"


def test_a_report_alone_is_another_object_than_one_with_a_segmentation(reading: Reading, out: Path) -> None:
    read = reading()
    both = encode(read, out)["sr"]
    alone = encode(read, out, "sr")["sr"]
    assert both.sop_instance_uid != alone.sop_instance_uid
    assert both.series_uid != alone.series_uid


def test_equipment_and_observer_are_one_device_that_changes_with_the_weights(reading: Reading, out: Path) -> None:
    encode(reading(), out)
    made_by = identity.maker(CARD)
    for kind in ("seg", "sr"):
        items = dcmread(out / f"{kind}.dcm").ContributingEquipmentSequence
        (item,) = [i for i in items if i.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"]
        assert (item.DeviceUID, item.ManufacturerModelName) == (made_by.device_uid, made_by.model)
        assert (item.Manufacturer, item.SoftwareVersions) == (made_by.manufacturer, made_by.version)
    report = highdicom.sr.srread(out / "sr.dcm")
    device = report.content.get_observer_contexts()[0].observer_identifying_attributes
    assert (device.uid, device.manufacturer_name, device.model_name) == (
        made_by.device_uid,
        made_by.manufacturer,
        made_by.model,
    )
    assert identity.maker(replace(CARD, weights_sha256="cd" * 32)).device_uid != made_by.device_uid


@pytest.mark.parametrize("found", ["something", "nothing"])
def test_dciodvfy_finds_no_error(reading: Reading, out: Path, found: str) -> None:
    tool("dciodvfy")
    results = encode(reading(found=None if found == "something" else np.zeros_like(mask())), out)
    assert {kind: complaints(inflated(out / r.path)) for kind, r in results.items()} == {kind: [] for kind in results}


def test_dsrdump_reads_the_report(reading: Reading, out: Path) -> None:
    encode(reading(), out)
    done = subprocess.run([tool("dsrdump"), out / "sr.dcm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Lung nodule 1" in done.stdout


_AGAIN = """
import pickle, sys, pathlib
from overread.encode import encoders
read, results = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()), []
for encoder in encoders(["seg", "sr"]):
    results.extend(encoder.encode(read, pathlib.Path(sys.argv[2]), results))
"""


def test_the_same_reading_gives_the_same_bytes_in_another_process(reading: Reading, out: Path, tmp_path: Path) -> None:
    read = reading()
    first = encode(read, out)
    (tmp_path / "read.pickle").write_bytes(pickle.dumps(read))
    again = tmp_path / "again"
    again.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _AGAIN, str(tmp_path / "read.pickle"), str(again)]
    subprocess.run(command, check=True, env=environment)
    assert {kind: digest(again / r.path) for kind, r in first.items()} == {k: r.digest for k, r in first.items()}


def test_another_key_gives_other_objects(reading: Reading, out: Path) -> None:
    read = reading()
    first, other = encode(read, out), encode(replace(read, key="other"), out)
    assert all(first[k].sop_instance_uid != other[k].sop_instance_uid for k in first)
    assert all(first[k].series_uid != other[k].series_uid for k in first)


def test_time_stamps_are_the_readings_on_the_studys_clock(reading: Reading, out: Path) -> None:
    def change(k: int, ds: Dataset) -> None:
        ds.TimezoneOffsetFromUTC = "-0930"

    encode(reading(change), out)
    for kind in ("seg", "sr"):
        ds = dcmread(out / f"{kind}.dcm")
        assert (ds.ContentDate, ds.ContentTime, ds.InstanceCreationTime) == ("20261120", "223910", "223910")
        assert ds.TimezoneOffsetFromUTC == "-0930"


def _without(*keywords: str) -> Change:
    def change(k: int, ds: Dataset) -> None:
        for keyword in keywords:
            if keyword in ds:
                del ds[keyword]

    return change


def _with(**values: object) -> Change:
    def change(k: int, ds: Dataset) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what scanners write is not always valid
            for keyword, value in values.items():
                setattr(ds, keyword, value)

    return change


def _jitter(k: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, round(k * 1e-6, 7), 0, 1, 0]


def _japanese(k: int, ds: Dataset) -> None:
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"


TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
IMPERFECT: dict[str, Change] = {
    "no type 2 attribute": _without(*TYPE_2, "PositionReferenceIndicator", "Manufacturer"),
    "no modality": _without("Modality"),
    "sex unknown": _with(PatientSex="U"),
    "sex in words": _with(PatientSex="Male"),
    "birth date with dashes": _with(PatientBirthDate="1960-01-01"),
    "birth date in words": _with(PatientBirthDate="UNKNOWN"),
    "study date with dots": _with(StudyDate="2024.01.02"),
    "study time with colons": _with(StudyTime="10:11:12"),
    "age without unit": _with(PatientAge="64"),
    "long accession number": _with(AccessionNumber="A" * 30),
    "long manufacturer": _with(Manufacturer="M" * 80),
    "no thickness": _without("SliceThickness"),
    "empty thickness": _with(SliceThickness=None),
    "orientation jitter": _jitter,
    "character set of several values": _japanese,
    "no character set": _without("SpecificCharacterSet"),
    "unknown character set": _with(SpecificCharacterSet="ISO_IR_100"),
}


def _ascii(change: Change) -> Change:
    """Names that any character set holds, unless the change sets its own."""

    def both(k: int, ds: Dataset) -> None:
        ds.PatientName = "Miller^George"
        change(k, ds)

    return both


@pytest.mark.parametrize("change", IMPERFECT.values(), ids=IMPERFECT)
def test_imperfect_headers_are_survived_and_carried_verbatim(reading: Reading, out: Path, change: Change) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test's own reading and writing of imperfect values
        read = reading(_ascii(change))
    results = encode(read, out)
    assert set(results) == {"seg", "sr"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = dcmread(read.volume.paths[0])
        for kind in ("seg", "sr"):
            ds = dcmread(out / f"{kind}.dcm")
            for keyword in (*TYPE_2, "PatientAge"):
                assert str(ds.get(keyword) or "") == str(source.get(keyword) or "")


@pytest.mark.parametrize("name", ["no type 2 attribute", "no thickness", "orientation jitter"])
def test_what_can_be_mended_is_valid(reading: Reading, out: Path, name: str) -> None:
    tool("dciodvfy")
    results = encode(reading(_ascii(IMPERFECT[name])), out)
    assert {kind: complaints(inflated(out / r.path)) for kind, r in results.items()} == {kind: [] for kind in results}


def test_names_of_several_character_sets_are_written_in_utf_8(reading: Reading, out: Path) -> None:
    encode(reading(_japanese), out)
    for kind in ("seg", "sr"):
        assert "山田".encode() in inflated(out / f"{kind}.dcm").read_bytes()


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="surface"):
        encoders(["seg", "surface"])


def test_encoders_come_in_the_tables_order() -> None:
    assert [e.kind for e in encoders(["sr", "seg"])] == ["seg", "sr"]


def test_choosing_encoders_imports_nothing_heavy() -> None:
    code = (
        "import sys, overread.encode, overread.measure; sys.exit('highdicom' in sys.modules or 'scipy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
