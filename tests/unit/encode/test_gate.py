"""Sabotage: whatever moves a result off its pixels, its patient or its numbers is refused, and its file kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced, Stumbled, Unfit
from overread.domain.findings import Findings
from overread.domain.geometry import Stack
from overread.domain.result import Result
from overread.domain.variant import Variant
from overread.encode import encoders, gate, seal
from overread.encode.layers import layers
from overread.encode.multiframe import Multiframe
from overread.encode.sources import read_sources
from overread.ports import Read

from .conftest import mask

Reading = Callable[..., Read]
Sabotage = Callable[[Dataset], None]


def _bits(seg: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> None:
    count = int(seg.NumberOfFrames) * seg.Rows * seg.Columns
    frames = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[:count]
    packed = np.packbits(change(frames.reshape(-1, seg.Rows, seg.Columns)), bitorder="little").tobytes()
    seg.PixelData = packed + bytes(len(packed) % 2)


def _shift(seg: Dataset, axis: int = 0, mm: float = 0.05) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = list(frame.PlanePositionSequence[0].ImagePositionPatient)
        position[axis] = float(position[axis]) + mm
        frame.PlanePositionSequence[0].ImagePositionPatient = position


def _swap_positions(seg: Dataset) -> None:
    a, b = seg.PerFrameFunctionalGroupsSequence[0], seg.PerFrameFunctionalGroupsSequence[2]
    a.PlanePositionSequence, b.PlanePositionSequence = b.PlanePositionSequence, a.PlanePositionSequence


def _swap_slices(seg: Dataset) -> None:
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    groups[0], groups[2] = groups[2], groups[0]
    seg.PerFrameFunctionalGroupsSequence = groups


def _rename_segments(seg: Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 2, 2: 1}.get(item.ReferencedSegmentNumber, item.ReferencedSegmentNumber)


def _one_voxel(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    frames[3, 0, 0] ^= 1
    return frames


def _foreign_slice(seg: Dataset) -> None:
    frame = seg.PerFrameFunctionalGroupsSequence[1]
    frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _shared(seg: Dataset) -> Dataset:
    return seg.SharedFunctionalGroupsSequence[0]


def _transpose_orientation(seg: Dataset) -> None:
    _shared(seg).PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def _swap_spacing(seg: Dataset) -> None:
    measures = _shared(seg).PixelMeasuresSequence[0]
    measures.PixelSpacing = list(measures.PixelSpacing)[::-1]


def _set(**values: object) -> Sabotage:
    def sabotage(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return sabotage


def _without_frame(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence = list(seg.PerFrameFunctionalGroupsSequence)[:-1]


def _without_reference(seg: Dataset) -> None:
    del seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


SEGMENTATIONS: dict[str, tuple[Sabotage, str]] = {
    "shifted in plane": (_shift, "mm from the slice"),
    "shifted along the patient": (lambda seg: _shift(seg, 2, -2.5), "mm from the slice"),
    "positions swapped": (_swap_positions, "mm from the slice"),
    "slices swapped": (_swap_slices, "differ from the findings"),
    "rows flipped": (lambda seg: _bits(seg, lambda f: f[:, ::-1]), "differ from the findings"),
    "columns flipped": (lambda seg: _bits(seg, lambda f: f[:, :, ::-1]), "differ from the findings|overlaps"),
    "frames reversed": (lambda seg: _bits(seg, lambda f: f[::-1]), "differ from the findings|overlaps"),
    "one voxel wrong": (lambda seg: _bits(seg, _one_voxel), "1 voxels"),
    "segments exchanged": (_rename_segments, "differ from the findings"),
    "foreign slice": (_foreign_slice, "does not name one source slice"),
    "orientation transposed": (_transpose_orientation, "ImageOrientationPatient"),
    "spacing swapped": (_swap_spacing, "PixelSpacing"),
    "other frame of reference": (_set(FrameOfReferenceUID="1.2.3"), "FrameOfReferenceUID"),
    "other patient": (_set(PatientID="P2"), "PatientID"),
    "other name": (_set(PatientName="Mueller^Joerg"), "PatientName"),
    "other study": (_set(StudyInstanceUID="1.2.3"), "StudyInstanceUID"),
    "other accession": (_set(AccessionNumber="A2"), "AccessionNumber"),
    "no birth date": (lambda seg: delattr(seg, "PatientBirthDate"), "PatientBirthDate"),
    "frame not described": (_without_frame, "not equally many"),
    "slice not referenced": (_without_reference, "ReferencedSeriesSequence"),
    "position missing": (
        lambda seg: delattr(seg.PerFrameFunctionalGroupsSequence[0], "PlanePositionSequence"),
        "does not read back",
    ),
}


def _groups(report: Dataset) -> list[Dataset]:
    (container,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(container.ContentSequence)


def _child(group: Dataset, value_type: str, code: str) -> Dataset:
    return next(
        i for i in group.ContentSequence if i.ValueType == value_type and i.ConceptNameCodeSequence[0].CodeValue == code
    )


def _move_outline(report: Dataset, by: float) -> None:
    region = _child(_groups(report)[0], "SCOORD", "111030")
    region.GraphicData = [v + by for v in region.GraphicData]


def _outline_on(report: Dataset, uid: str) -> None:
    region = _child(_groups(report)[2], "SCOORD", "111030")
    region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = uid


def _wrong_volume(report: Dataset) -> None:
    number = _child(_groups(report)[1], "NUM", "118565006")
    number.MeasuredValueSequence[0].NumericValue = "0.5"


def _wrong_segment(report: Dataset) -> None:
    reference = _child(_groups(report)[1], "IMAGE", "121191").ReferencedSOPSequence[0]
    reference.ReferencedSegmentNumber = 1


def _exchange_tracking(report: Dataset) -> None:
    a, b = (_child(g, "UIDREF", "112040") for g in _groups(report)[:2])
    a.UID, b.UID = b.UID, a.UID


def _drop_group(report: Dataset) -> None:
    (container,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    del container.ContentSequence[0]


def _drop_evidence(report: Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]


REPORTS: dict[str, tuple[Sabotage, str]] = {
    "outline moved": (lambda sr: _move_outline(sr, 1.0), "outline"),
    "outline between pixels": (lambda sr: _move_outline(sr, 0.5), "outline"),
    "outline outside": (lambda sr: _move_outline(sr, 40.0), "leaves its image"),
    "outline on another slice": (lambda sr: _outline_on(sr, "1.2.826.0.1.3680043.8.498.1.5"), "outline"),
    "outline on a foreign image": (lambda sr: _outline_on(sr, "1.2.3"), "neither a source slice"),
    "wrong volume": (_wrong_volume, "numbers"),
    "wrong segment": (_wrong_segment, "another segment"),
    "tracking exchanged": (_exchange_tracking, "outline|numbers"),
    "group missing": (_drop_group, "3 measurement groups"),
    "evidence missing": (_drop_evidence, "evidence"),
    "other patient": (_set(PatientID="P2"), "PatientID"),
}


def _sabotaged(monkeypatch: pytest.MonkeyPatch, kind: str, sabotage: Sabotage) -> None:
    describe, write = seal.describe, Multiframe.write

    def spoil(path: Path) -> None:
        written = dcmread(path)
        sabotage(written)
        written.save_as(path)

    def worse_report(dataset: Dataset, path: Path, *described: str, **more: str) -> Result:
        if path.stem == "sr":
            spoil(path)
        return describe(dataset, path, *described, **more)

    def worse_segmentation(made: Multiframe, path: Path) -> str:
        digest = write(made, path)
        spoil(path)
        return digest

    if kind == "seg":
        monkeypatch.setattr(Multiframe, "write", worse_segmentation)
    else:
        monkeypatch.setattr(seal, "describe", worse_report)


@pytest.mark.parametrize(("sabotage", "reason"), SEGMENTATIONS.values(), ids=SEGMENTATIONS)
def test_a_misplaced_segmentation_is_refused(
    reading: Reading, out: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage, reason: str
) -> None:
    _sabotaged(monkeypatch, "seg", sabotage)
    (encoder,) = encoders(["seg"])
    with pytest.raises(Misplaced, match=reason) as refusal:
        encoder.encode(reading(), out, [])
    assert refusal.value.file == out / "seg.dcm"
    assert refusal.value.file.exists()
    assert not any(secret in str(refusal.value) for secret in ("Jörg", "P1", "P2", "1960"))


@pytest.mark.parametrize(("sabotage", "reason"), REPORTS.values(), ids=REPORTS)
def test_a_report_that_says_something_else_is_refused(
    reading: Reading, out: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage, reason: str
) -> None:
    _sabotaged(monkeypatch, "sr", sabotage)
    read = reading()
    segmentation, report = encoders(["seg", "sr"])
    made = segmentation.encode(read, out, [])
    assert made
    with pytest.raises(Misplaced, match=reason) as refusal:
        report.encode(read, out, made)
    assert refusal.value.file == out / "sr.dcm"


def test_an_untouched_result_passes_again(reading: Reading, out: Path) -> None:
    read = reading()
    (encoder,) = encoders(["seg"])
    encoder.encode(read, out, [])
    (layer,) = layers(read.findings)
    gate.pass_segmentation(out / "seg.dcm", read, read_sources(read.volume), layer, Variant())


def _reversed_paths(read: Read) -> Read:
    return replace(read, volume=replace(read.volume, paths=read.volume.paths[::-1]))


def _reversed_slices(read: Read) -> Read:
    stack = read.volume.stack
    turned = Stack(stack.instances[::-1], stack.affine, stack.spacing_mm)
    return replace(read, volume=replace(read.volume, stack=turned, paths=read.volume.paths[::-1]))


def _turned_axes(read: Read) -> Read:
    affine = read.volume.affine.copy()
    affine[:3, [1, 2]] = affine[:3, [2, 1]]
    stack = replace(read.volume.stack, affine=affine)
    return replace(read, volume=replace(read.volume, stack=stack))


def _gap_in_numbers(read: Read) -> Read:
    found = read.findings
    return replace(read, findings=Findings(found.mask, found.segments[:2] + found.segments[3:]))


def _transposed_mask(read: Read) -> Read:
    return replace(read, findings=Findings(read.findings.mask.transpose(0, 2, 1), read.findings.segments))


@pytest.mark.parametrize("kind", ["seg", "sr"])
@pytest.mark.parametrize("wrong", [_reversed_paths, _reversed_slices, _turned_axes, _gap_in_numbers, _transposed_mask])
def test_a_reading_that_does_not_fit_its_files_is_refused(
    reading: Reading, out: Path, kind: str, wrong: Callable[[Read], Read]
) -> None:
    (encoder,) = encoders([kind])
    with pytest.raises(Misplaced):
        encoder.encode(wrong(reading()), out, [])


def test_a_segment_without_voxels_is_refused(reading: Reading, out: Path) -> None:
    read = reading()
    emptied = np.where(mask() == 2, 0, mask()).astype(np.uint8)
    (encoder,) = encoders(["sr"])
    with pytest.raises(Misplaced, match="segment 2 has no voxels"):
        encoder.encode(replace(read, findings=Findings(emptied, read.findings.segments)), out, [])


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_two_are_refused(reading: Reading, out: Path, keyword: str) -> None:
    read = reading()
    odd = dcmread(read.volume.paths[3])
    setattr(odd, keyword, "1.2.3")
    odd.save_as(read.volume.paths[3])
    (encoder,) = encoders(["seg"])
    with pytest.raises(Unfit, match=keyword):
        encoder.encode(read, out, [])


def test_slices_without_a_frame_of_reference_get_a_report_only(reading: Reading, out: Path) -> None:
    read = reading(lambda k, ds: delattr(ds, "FrameOfReferenceUID"))
    segmentation, report = encoders(["seg", "sr"])
    with pytest.raises(Unfit, match="FrameOfReferenceUID"):
        segmentation.encode(read, out, [])
    assert report.encode(read, out, [])


def test_a_source_that_has_gone_may_be_tried_again(reading: Reading, out: Path) -> None:
    read = reading()
    Path(read.volume.paths[2]).unlink()
    (encoder,) = encoders(["seg"])
    with pytest.raises(Stumbled):
        encoder.encode(read, out, [])
