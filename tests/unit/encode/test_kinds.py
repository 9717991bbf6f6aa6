"""Overlapping segments, boxes and classes leave as valid objects, on their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.findings import Detection, Findings, Judgement
from overread.domain.result import Result
from overread.encode import encoders
from overread.encode.gate import pass_report
from overread.encode.report_tree import Draft
from overread.encode.sources import read_sources
from overread.ports import Read

from .conftest import LABELS, SHAPE, complaints, inflated, mask, segments, tool

Reading = Callable[..., Read]


def encode(read: Read, out: Path) -> dict[str, list[Path]]:
    made: list[Result] = []
    for encoder in encoders(["seg", "sr"]):
        made.extend(encoder.encode(read, out, made))
    found: dict[str, list[Path]] = {}
    for result in made:
        found.setdefault(result.kind, []).append(out / result.path)
    return found


def with_findings(reading: Reading, findings: Findings) -> Read:
    return replace(reading(), findings=findings)


def overlapping() -> Findings:
    """The nodules lie within a lung, in a mask of their own."""
    lungs, nodules = mask(), np.zeros(SHAPE, np.uint8)
    nodules[mask() > 2] = mask()[mask() > 2]
    lungs[lungs > 2] = 2
    return Findings(lungs, segments(mask()), overlays=(nodules,))


def test_segments_that_overlap_keep_all_their_voxels(reading: Reading, out: Path) -> None:
    found = overlapping()
    files = encode(with_findings(reading, found), out)
    voxels, places = {}, {}
    for seg in map(dcmread, files["seg"]):
        tracked = {int(s.SegmentNumber): str(s.TrackingUID) for s in seg.SegmentSequence}
        places |= {uid: (str(seg.SOPInstanceUID), number) for number, uid in tracked.items()}
        for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
            uid = tracked[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
            voxels[uid] = voxels.get(uid, 0) + int(frame.sum())
    assert [len(dcmread(f).SegmentSequence) for f in files["seg"]] == [2, 2]
    assert list(voxels.values()) == [int(sum((layer == n).sum() for layer in found.layers)) for n in (1, 2, 3, 4)]
    assert told_places(dcmread(files["sr"][0])) == places


def child(report: Dataset, name: str) -> Dataset:
    """The only child of the root of this name."""
    (found,) = [c for c in report.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == name]
    return found


def told_places(report: Dataset) -> dict[str, tuple[str, int]]:
    """Where the report says that each tracked segment is: segmentation and number."""
    told = {}
    for group in child(report, "Imaging Measurements").ContentSequence:
        (uid,) = [str(c.UID) for c in group.ContentSequence if c.ValueType == "UIDREF"]
        (image,) = [c.ReferencedSOPSequence[0] for c in group.ContentSequence if c.ValueType == "IMAGE"]
        told[uid] = (str(image.ReferencedSOPInstanceUID), int(image.ReferencedSegmentNumber))
    return told


def boxes() -> Findings:
    return Findings(
        np.zeros(SHAPE, np.uint8),
        (),
        detections=(
            Detection(LABELS[2], "Lung nodule 1", 0.875, (1.0, 3.0, 4.0), (3.0, 8.0, 9.0)),
            Detection(LABELS[2], "Lung nodule 2", 0.25, (4.0, -2.0, 15.0), (5.0, 4.0, 30.0)),
        ),
    )


def test_a_box_is_a_rectangle_on_its_middle_slice_with_its_score(reading: Reading, out: Path) -> None:
    read = with_findings(reading, boxes())
    files = encode(read, out)
    assert set(files) == {"sr"}
    groups = dcmread(files["sr"][0]).ContentSequence[-2].ContentSequence
    first = groups[0].ContentSequence
    (rectangle,) = [c for c in first if c.ValueType == "SCOORD"]
    assert list(rectangle.GraphicData) == [4.5, 3.5, 9.5, 3.5, 9.5, 8.5, 4.5, 8.5, 4.5, 3.5]
    source = rectangle.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert source == dcmread(read.volume.paths[2]).SOPInstanceUID
    (score,) = [c for c in first if c.ValueType == "NUM"]
    assert score.ConceptNameCodeSequence[0].CodeMeaning == "Certainty of Finding"
    assert float(score.MeasuredValueSequence[0].NumericValue) == 87.5
    second = next(c for c in groups[1].ContentSequence if c.ValueType == "SCOORD")
    assert max(second.GraphicData[::2]) == SHAPE[2]
    assert min(second.GraphicData[1::2]) == 0


def test_a_box_elsewhere_does_not_pass_the_gate(reading: Reading, out: Path) -> None:
    read = with_findings(reading, boxes())
    (path,) = encode(read, out)["sr"]
    moved = replace(boxes().detections[0], low=(1.0, 4.0, 4.0))
    other = replace(read, findings=replace(boxes(), detections=(moved, boxes().detections[1])))
    with pytest.raises(Misplaced, match="Lung nodule 1 of the report does not lie where it was found"):
        pass_report(path, Draft("sr", other, read_sources(read.volume), {}))


def classes() -> Findings:
    judged = (Judgement(LABELS[0], 0.9, chosen=True), Judgement(LABELS[1], 0.1, chosen=False))
    return Findings(np.zeros(SHAPE, np.uint8), (), judgements=judged)


def test_classes_are_qualitative_evaluations_with_their_probability(reading: Reading, out: Path) -> None:
    evaluations = dcmread(encode(with_findings(reading, classes()), out)["sr"][0]).ContentSequence[-1]
    assert evaluations.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    summary, first, second, missing, comment = evaluations.ContentSequence
    assert summary.ConceptCodeSequence[0].CodeMeaning == "All algorithms succeeded; with findings"
    assert comment.TextValue == "AI result, not a diagnosis."
    assert [i.ConceptCodeSequence[0].CodeMeaning for i in (first, second)] == ["Present", "Absent"]
    assert float(first.ContentSequence[0].MeasuredValueSequence[0].NumericValue) == 90.0
    assert missing.ConceptNameCodeSequence[0].CodeMeaning == "Nodule"


def everything() -> Findings:
    """Overlapping segments, boxes and classes of one reading."""
    return replace(overlapping(), detections=boxes().detections, judgements=classes().judgements)


def test_segments_of_all_layers_boxes_and_classes_stand_in_one_report(reading: Reading, out: Path) -> None:
    files = encode(with_findings(reading, everything()), out)
    measurements, evaluations = dcmread(files["sr"][0]).ContentSequence[-2:]
    assert (len(files["seg"]), len(files["sr"]), len(measurements.ContentSequence)) == (2, 1, 4 + 2)
    judged = [
        i for i in evaluations.ContentSequence if "ContentSequence" in i and i.ContentSequence[0].ValueType == "NUM"
    ]
    assert len(judged) == 2


@pytest.mark.parametrize("variants", [("binary", "labelmap"), ("labelmap-rle", "binary")])
def test_in_every_variant_the_report_tells_of_boxes_and_classes_too(
    reading: Reading, out: Path, variants: tuple[str, ...]
) -> None:
    files = encode(replace(with_findings(reading, everything()), variants=variants), out)
    assert (len(files["seg"]), len(files["sr"])) == (4, 2)
    for path in files["sr"]:
        assert len(dcmread(path).ContentSequence[-2].ContentSequence) == 6


@pytest.mark.parametrize(
    "findings", [overlapping(), boxes(), classes(), everything()], ids=["overlapping", "boxes", "classes", "all"]
)
def test_dciodvfy_finds_no_error_in_them(reading: Reading, out: Path, findings: Findings) -> None:
    tool("dciodvfy")
    for paths in encode(with_findings(reading, findings), out).values():
        assert [complaints(inflated(path)) for path in paths] == [[]] * len(paths)
