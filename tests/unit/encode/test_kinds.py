"""Overlapping segments, boxes and classes leave as valid objects, on their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from overread.domain.errors import Misplaced
from overread.domain.findings import Detection, Findings, Judgement
from overread.encode import encoders
from overread.encode.gate import pass_report
from overread.encode.sources import read_sources
from overread.ports import Read

from .conftest import LABELS, SHAPE, complaints, mask, segments, tool

Reading = Callable[..., Read]


def encode(read: Read, out: Path) -> dict[str, Path]:
    made = []
    for encoder in encoders(["seg", "sr"]):
        result = encoder.encode(read, out, made)
        made += [result] if result else []
    return {result.kind: out / result.path for result in made}


def with_findings(reading: Reading, findings: Findings) -> Read:
    return replace(reading(), findings=findings)


def overlapping() -> Findings:
    """The nodules lie within a lung, in a mask of their own."""
    lungs, nodules = mask(), np.zeros(SHAPE, np.uint8)
    nodules[mask() > 2] = mask()[mask() > 2]
    lungs[lungs > 2] = 2
    return Findings(lungs, segments(mask()), overlays=(nodules,))


def test_segments_that_overlap_keep_all_their_voxels(reading: Reading, out: Path) -> None:
    files = encode(with_findings(reading, overlapping()), out)
    seg = dcmread(files["seg"])
    frames = seg.pixel_array
    voxels = {n: 0 for n in (1, 2, 3, 4)}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        voxels[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(frame.sum())
    found = overlapping()
    assert voxels == {n: int(sum((layer == n).sum() for layer in found.layers)) for n in voxels}
    assert len(dcmread(files["sr"]).ContentSequence[-1].ContentSequence) == 4


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
    groups = dcmread(files["sr"]).ContentSequence[-2].ContentSequence
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
    path = encode(read, out)["sr"]
    moved = replace(boxes().detections[0], low=(1.0, 4.0, 4.0))
    other = replace(read, findings=replace(boxes(), detections=(moved, boxes().detections[1])))
    with pytest.raises(Misplaced, match="Lung nodule 1 of the report does not lie where it was found"):
        pass_report(path, other, read_sources(read.volume), None)


def classes() -> Findings:
    judged = (Judgement(LABELS[0], 0.9, chosen=True), Judgement(LABELS[1], 0.1, chosen=False))
    return Findings(np.zeros(SHAPE, np.uint8), (), judgements=judged)


def test_classes_are_qualitative_evaluations_with_their_probability(reading: Reading, out: Path) -> None:
    evaluations = dcmread(encode(with_findings(reading, classes()), out)["sr"]).ContentSequence[-1]
    assert evaluations.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    first, second, missing = evaluations.ContentSequence
    assert [i.ConceptCodeSequence[0].CodeMeaning for i in (first, second)] == ["Present", "Absent"]
    assert float(first.ContentSequence[0].MeasuredValueSequence[0].NumericValue) == 90.0
    assert missing.ConceptNameCodeSequence[0].CodeMeaning == "Nodule"


@pytest.mark.parametrize("findings", [overlapping(), boxes(), classes()], ids=["overlapping", "boxes", "classes"])
def test_dciodvfy_finds_no_error_in_them(reading: Reading, out: Path, findings: Findings) -> None:
    tool("dciodvfy")
    for path in encode(with_findings(reading, findings), out).values():
        assert complaints(path) == []
