"""Each way to write a segmentation holds the findings, and each way to spoil it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.findings import Findings
from overread.domain.result import Result, choose
from overread.encode import encoders, gate_validator
from overread.encode.difference import differences
from overread.encode.layers import places
from overread.encode.multiframe import Multiframe
from overread.ports import Read

from .conftest import complaints, inflated, mask, segments, tool

Reading = Callable[..., Read]
LABEL_MAP, BINARY = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.4"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"


def wanting(read: Read, *variants: str) -> Read:
    return replace(read, variants=variants)


def probable(read: Read) -> Read:
    """The same with probabilities, higher in the middle of the slices."""
    found, rng = read.findings, np.random.default_rng(2)
    noise = (0.2 + 0.8 * rng.random(found.mask.shape)).astype(np.float16)
    given = {s.value: np.where(found.mask == s.value, noise, 0).astype(np.float16) for s in found.segments}
    return replace(read, findings=replace(found, probabilities=given))


def overlapping(read: Read) -> Read:
    """The second nodule lies in the right lung, and so does the first one's halo."""
    first, second = mask(), np.zeros_like(mask())
    first[first == 4] = 0
    second[1:3, 5:9, 12:16] = 4
    listed = segments(np.maximum(first, second))
    return replace(read, findings=Findings(first, listed, overlays=(second,)))


def encode(read: Read, folder: Path, *kinds: str) -> list[Result]:
    results: list[Result] = []
    for encoder in encoders(kinds or ("seg", "sr")):
        results.extend(encoder.encode(read, folder, results))
    return results


def test_each_variant_is_made_once_and_a_report_for_each(reading: Reading, out: Path) -> None:
    results = encode(wanting(reading(), "binary", "labelmap-rle", "binary-full"), out)
    told = [(r.kind, r.alternative, r.variant, r.sop_class_uid, r.transfer_syntax_uid) for r in results]
    assert told[:3] == [
        ("seg", "seg/1", "binary", BINARY, DEFLATED),
        ("seg", "seg/1", "labelmap-rle", LABEL_MAP, RLE),
        ("seg", "seg/1", "binary-full", BINARY, DEFLATED),
    ]
    assert [t[:3] for t in told[3:]] == [("sr", "sr", v) for v in ("binary", "labelmap-rle", "binary-full")]
    assert len({r.sop_instance_uid for r in results}) == len({r.path for r in results}) == 6


def test_a_destination_gets_a_report_that_refers_to_its_own_segmentation(reading: Reading, out: Path) -> None:
    results = encode(wanting(reading(), "labelmap", "binary"), out)
    seg, report = choose(results, ["labelmap", "binary"], lambda r: r.sop_class_uid != LABEL_MAP)
    assert seg.sop_class_uid == BINARY
    named = {
        str(i.ReferencedSOPInstanceUID)
        for s in dcmread(out / report.path).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for i in s.ReferencedSOPSequence
    }
    assert seg.sop_instance_uid in named
    assert not named & {r.sop_instance_uid for r in results if r.kind == "seg" and r is not seg}


def test_probabilities_that_nobody_gave_leave_the_floor(reading: Reading, out: Path) -> None:
    assert [r.variant for r in encode(wanting(reading(), "fractional"), out)] == ["binary", "binary"]


@pytest.mark.parametrize("name", ["binary", "binary-full", "labelmap", "labelmap-rle", "fractional", "fractional-full"])
def test_highdicom_reads_the_findings_back(reading: Reading, out: Path, name: str) -> None:
    read = wanting(probable(reading()), name)
    result = encode(read, out, "seg")[0]
    seg = highdicom.seg.segread(out / result.path)
    uids = [i.sop_instance_uid for i in read.volume.stack.instances]
    if name.startswith("fractional"):
        found = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        wanted = np.stack(list(read.findings.probabilities.values()), axis=-1)
        assert np.abs(found - wanted.astype(np.float32)).max() <= 0.5 / 255 + 1e-3
    else:
        found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
        assert np.array_equal(found, read.findings.mask)


def test_empty_frames_are_kept_where_asked_for(reading: Reading, out: Path) -> None:
    few, many = encode(wanting(reading(), "binary", "binary-full"), out, "seg")
    assert int(dcmread(out / many.path).NumberOfFrames) == 4 * 6
    assert int(dcmread(out / few.path).NumberOfFrames) < 4 * 6


@pytest.mark.parametrize("name", ["binary", "binary-full", "fractional"])
def test_dciodvfy_finds_no_error(reading: Reading, out: Path, name: str) -> None:
    tool("dciodvfy")
    for result in encode(wanting(probable(reading()), name), out):
        assert complaints(inflated(out / result.path)) == []


def test_overlapping_segments_go_into_segmentations_of_their_own(reading: Reading, out: Path) -> None:
    read = wanting(overlapping(reading()), "binary", "labelmap")
    results = encode(read, out)
    assert [(r.alternative, r.variant) for r in results if r.kind == "seg"] == [
        *(("seg/1", "binary"), ("seg/1", "labelmap"), ("seg/2", "binary"), ("seg/2", "labelmap"))
    ]
    first, second = (dcmread(out / r.path) for r in results if r.variant == "binary" and r.kind == "seg")
    assert [s.SegmentLabel for s in first.SegmentSequence] == ["Left lung", "Right lung", "Lung nodule 1"]
    assert [(s.SegmentNumber, s.SegmentLabel) for s in second.SegmentSequence] == [(1, "Lung nodule 2")]
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert {s.SegmentsOverlap for s in (first, second)} == {"NO"}
    uids = [i.sop_instance_uid for i in read.volume.stack.instances]
    for result, layer in zip([r for r in results if r.variant == "labelmap"], read.findings.layers, strict=False):
        seg = highdicom.seg.segread(out / result.path)
        found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
        assert np.array_equal(found > 0, layer > 0)


def test_the_report_finds_each_segment_in_its_segmentation(reading: Reading, out: Path) -> None:
    read = overlapping(reading())
    results = encode(read, out)
    where = places(read.findings, results, "binary")
    assert {value: (place.result.alternative, place.number) for value, place in where.items()} == {
        **{1: ("seg/1", 1), 2: ("seg/1", 2)},
        **{3: ("seg/1", 3), 4: ("seg/2", 1)},
    }
    report = highdicom.sr.srread(out / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    named = [
        (i.referenced_sop_instance_uid, i.referenced_segment_numbers[0])
        for group in groups
        for i in group[0].ContentSequence
        if i.name.value == "121191"
    ]
    assert named == [(p.result.sop_instance_uid, p.number) for _, p in sorted(where.items())]


def test_what_is_asked_for_by_query_is_filled(reading: Reading, out: Path) -> None:
    def ordered(k: int, ds: Dataset) -> None:
        request = Dataset()
        request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
        request.AccessionNumber = "A1"
        ds.RequestAttributesSequence, ds.BodyPartExamined = [request], "CHEST"

    encode(reading(ordered), out)
    for kind in ("seg", "sr"):
        ds = dcmread(out / f"{kind}.dcm")
        assert (ds.SeriesDate, ds.SeriesTime) == (ds.ContentDate, ds.ContentTime)
        assert (ds.InstanceNumber, ds.SeriesNumber) == (1, ds.SeriesNumber)
    seg = dcmread(out / "seg.dcm")
    assert seg.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert (seg.BodyPartExamined, seg.PerformedProcedureStepStartDate) == ("CHEST", seg.ContentDate)


def test_series_numbers_and_descriptions_follow_the_settings(reading: Reading, out: Path) -> None:
    from overread.domain.provenance import Style

    read = replace(reading(), style=Style(700, "AI {kind}: {title} {version}"))
    encode(read, out)
    assert dcmread(out / "seg.dcm").SeriesDescription == "AI SEG: Overread CT chest 1.2.0"
    assert [dcmread(out / f"{k}.dcm").SeriesNumber % 10 for k in ("seg", "sr")] == [0, 1]
    own = replace(read, card=replace(read.card, series_number=88))
    other = out / "own"
    other.mkdir()
    encode(own, other)
    assert [dcmread(other / f"{k}.dcm").SeriesNumber for k in ("seg", "sr")] == [88, 89]


def test_the_digests_stand_in_the_equipment(reading: Reading, out: Path) -> None:
    from overread.domain.provenance import Provenance

    origin = Provenance("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    results = encode(replace(reading(), provenance=origin), out)
    for result in results:
        (item,) = [
            i
            for i in dcmread(out / result.path).ContributingEquipmentSequence
            if i.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        ]
        assert all(digest in item.ContributionDescription for digest in vars(origin).values())
        assert Provenance.of(result.provenance) == origin


# ------------------------------------------------------------------------------------------------------------ sabotage


def _frame(seg: Dataset, number: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    frames = np.frombuffer(seg.PixelData, np.uint8)[: int(seg.NumberOfFrames) * seg.Rows * seg.Columns]
    frames = frames.reshape(-1, seg.Rows, seg.Columns).copy()
    frames[number] = change(frames[number])
    raw = frames.tobytes()
    seg.PixelData = raw + bytes(len(raw) % 2)


def _reverse(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence = list(seg.PerFrameFunctionalGroupsSequence)[::-1]


def _empty(path: str) -> Callable[[Dataset], None]:
    def sabotage(ds: Dataset) -> None:
        *parents, keyword = path.split(".")
        for parent in parents:
            ds = ds[parent][0]
        setattr(ds, keyword, None)

    return sabotage


def _without(path: str) -> Callable[[Dataset], None]:
    def sabotage(ds: Dataset) -> None:
        *parents, keyword = path.split(".")
        for parent in parents:
            ds = ds[parent][0]
        del ds[keyword]

    return sabotage


def _drop_source(seg: Dataset) -> None:
    del seg.SourceImageSequence[2]


SABOTAGE = {
    "label map mirrored": ("labelmap", lambda s: _frame(s, 2, lambda f: f[:, ::-1]), "differ from the findings"),
    "label map upside down": ("labelmap", lambda s: _frame(s, 2, lambda f: f[::-1]), "differ from the findings"),
    "label map reversed": ("labelmap", _reverse, "differ from the findings"),
    "label map renumbered": ("labelmap", lambda s: _frame(s, 2, lambda f: np.where(f == 2, 1, f)), "differ from"),
    "label map rolled": ("labelmap", lambda s: _frame(s, 2, lambda f: np.roll(f, 1, 1)), "differ from the findings"),
    "fractions mirrored": ("fractional", lambda s: _frame(s, 1, lambda f: f[:, ::-1]), "probabilities"),
    "fractions reversed": ("fractional", _reverse, "probabilities"),
    "fractions rounded": ("fractional", lambda s: _frame(s, 1, lambda f: f // 128 * 255), "probabilities"),
    "frames reversed": ("binary", _reverse, "differ from the findings|overlaps"),
    "a source left out": ("binary", _drop_source, "SourceImageSequence"),
    "no series of sources": ("binary", _without("ReferencedSeriesSequence"), "does not read back"),
    "no modality": ("binary", _without("Modality"), "Modality is missing.*type 1"),
    "modality empty": ("binary", _empty("Modality"), "Modality is empty.*type 1"),
    "no content label": ("binary", _without("ContentLabel"), "ContentLabel is missing.*type 1"),
    "no serial number": ("binary", _empty("DeviceSerialNumber"), "DeviceSerialNumber is empty"),
    "no description": ("binary", _without("ContentDescription"), "ContentDescription is missing.*type 2"),
    "no segment label": ("binary", _without("SegmentSequence.SegmentLabel"), "SegmentLabel is missing"),
    "no category": (
        "binary",
        _empty("SegmentSequence.SegmentedPropertyCategoryCodeSequence"),
        "SegmentedPropertyCategoryCodeSequence is empty",
    ),
    "a code without meaning": (
        "binary",
        _empty("SegmentSequence.SegmentedPropertyCategoryCodeSequence.CodeMeaning"),
        "CodeMeaning is empty",
    ),
    "no image type": ("binary", _without("ImageType"), "ImageType is missing"),
    "no segments": ("binary", _without("SegmentSequence"), "does not read back"),
    "no dimensions": ("binary", _without("DimensionOrganizationSequence"), "DimensionOrganizationSequence is missing"),
}


@pytest.mark.parametrize(("variant", "sabotage", "reason"), SABOTAGE.values(), ids=SABOTAGE)
def test_a_spoilt_object_is_refused_and_kept(
    reading: Reading, monkeypatch: pytest.MonkeyPatch, variant: str, sabotage: Callable[[Dataset], None], reason: str
) -> None:
    write, read = Multiframe.write, reading()
    out = Path(read.volume.paths[0]).parent

    def worse(made: Multiframe, path: Path) -> str:
        digest = write(made, path)
        ds = dcmread(path)
        sabotage(ds)
        ds.save_as(path)
        return digest

    monkeypatch.setattr(Multiframe, "write", worse)
    with pytest.raises(Misplaced, match=reason) as refusal:
        encode(wanting(probable(read), variant), out, "seg")
    assert refusal.value.file is not None
    assert refusal.value.file.exists()


def test_dciodvfy_has_a_say(reading: Reading, out: Path) -> None:
    tool("dciodvfy")
    encode(reading(), out)
    ds = dcmread(out / "seg.dcm")
    ds.SegmentSequence[0].SegmentAlgorithmType = "WITCHCRAFT"
    ds.save_as(out / "seg.dcm")
    with pytest.raises(Misplaced, match=r"dciodvfy.*Segment ?Algorithm ?Type"):
        gate_validator.check(out / "seg.dcm")


def test_differences_are_told_without_values(reading: Reading, out: Path) -> None:
    encode(reading(), out)
    ds = dcmread(out / "seg.dcm")
    ds.SegmentSequence[1].SegmentLabel = "Something else"
    ds.PatientID = "P2"
    bits = bytearray(ds.PixelData)
    bits[60] ^= 255
    ds.PixelData = bytes(bits)
    ds.save_as(out / "other.dcm")
    told = list(differences(out / "seg.dcm", out / "other.dcm"))
    assert told == ["PatientID", "SegmentSequence[2].SegmentLabel", "PixelData (1 frames)"]
    assert list(differences(out / "seg.dcm", inflated(out / "seg.dcm"))) == ["TransferSyntaxUID"]
