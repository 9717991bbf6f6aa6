"""The forms of a report: for viewers every group has an outline, for machines it is complete; the root lists it all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.findings import Findings, Judgement
from overread.domain.pipeline import Stage
from overread.domain.result import Result, roots
from overread.encode import encoders, identity
from overread.ports import Read

from .conftest import CARD, LABELS, SHAPE, complaints, tool

Reading = Callable[..., Read]
NOTHING = Findings(np.zeros(SHAPE, np.uint8), ())
CLASSES = replace(
    NOTHING,
    judgements=(Judgement(LABELS[0], 0.9, chosen=True), Judgement(LABELS[1], 0.1, chosen=False)),
)


def encode(read: Read, out: Path, *kinds: str) -> dict[str, Result]:
    made: list[Result] = []
    for encoder in encoders(kinds):
        made.extend(encoder.encode(read, out, made))
    return {result.kind: result for result in made}


def groups(path: Path) -> list[Dataset]:
    """The measurement groups of a report."""
    found = [c for c in dcmread(path).ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(found[0].ContentSequence) if found else []


def value_types(group: Dataset) -> set[str]:
    return {str(c.ValueType) for c in group.ContentSequence}


@pytest.mark.parametrize("findings", [None, CLASSES, NOTHING], ids=["segments", "classes", "nothing"])
def test_every_group_of_a_viewers_report_has_an_outline(reading: Reading, out: Path, findings: Findings | None) -> None:
    read = reading()
    read = replace(read, findings=findings or read.findings)
    encode(read, out, "seg", "sr-viewer")
    found = groups(out / "sr-viewer.dcm")
    assert len(found) == (1 if findings else 4)
    assert all("SCOORD" in value_types(group) for group in found)
    assert complaints(out / "sr-viewer.dcm") == []


def test_the_complete_report_measures_volumes_and_says_classes_as_groups(reading: Reading, out: Path) -> None:
    read = reading()
    read = replace(read, findings=replace(read.findings, judgements=CLASSES.judgements))
    encode(read, out, "seg", "sr-data")
    report = highdicom.sr.srread(out / "sr-data.dcm")
    volumes = report.content.get_volumetric_roi_measurement_groups()
    assert len(volumes) == 4
    assert volumes[0].reference_type.meaning == "Referenced Segment"
    assert len(report.content.get_image_measurement_groups()) == 2
    assert complaints(out / "sr-data.dcm") == []
    done = subprocess.run([tool("dsr2html"), out / "sr-data.dcm"], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Image Library" in done.stdout


def test_the_most_complete_report_lists_all_that_was_made(reading: Reading, out: Path) -> None:
    kinds = ("seg", "sr-viewer", "sr")
    read = replace(reading(), roots=roots([kinds, ("seg", "sr")]), variants=("binary", "labelmap"))
    assert read.roots == {"sr": {"seg", "sr"}}
    made: list[Result] = []
    for encoder in encoders(kinds):
        made.extend(encoder.encode(read, out, made))
    reports = [r for r in made if r.kind == "sr"]
    assert [r.variant for r in reports] == ["binary", "labelmap"]
    for report in reports:
        (catalog,) = [
            c for c in dcmread(out / report.path).ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "121181"
        ]
        listed = [c.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for c in catalog.ContentSequence]
        assert listed == [r.sop_instance_uid for r in made if r.kind == "seg" and r.variant == report.variant]
    assert [r.alternative for r in made if r.kind == "sr-viewer"] == [""]


def test_another_list_is_another_object(reading: Reading, out: Path) -> None:
    read = reading()
    alone = encode(read, out, "seg", "sr")["sr"]
    listing = encode(replace(read, roots={"sr": frozenset(("seg", "sr"))}), out, "seg", "sr")["sr"]
    assert alone.sop_instance_uid != listing.sop_instance_uid


def test_no_root_lists_what_one_of_its_readers_never_gets() -> None:
    assert roots([("seg", "sr", "sc"), ("seg", "sr")]) == {"sr": {"seg", "sr"}}
    assert roots([("seg", "sr-viewer", "sr-data"), ("seg", "sr-viewer")]) == {
        "sr-data": {"seg", "sr-viewer", "sr-data"},
        "sr-viewer": {"seg", "sr-viewer"},
    }
    assert roots([("seg",)]) == {}


def test_each_algorithm_is_equipment_whose_device_changes_with_its_weights() -> None:
    stages = tuple(
        Stage(name, "onnx", f"{name}.onnx", weights_sha256=sha * 32) for name, sha in (("find", "cd"), ("judge", "ef"))
    )
    whole = replace(CARD, stages=stages)
    other = replace(whole, stages=(stages[0], replace(stages[1], weights_sha256="01" * 32)))
    assert [m.model for m in identity.makers(whole)] == [CARD.title, f"{CARD.title}: find", f"{CARD.title}: judge"]
    uids, others = ([m.device_uid for m in identity.makers(card)] for card in (whole, other))
    assert len(set(uids)) == 3
    assert [a == b for a, b in zip(uids, others, strict=True)] == [True, True, False]
    ensemble = replace(CARD, further_weights={"b.pt": "23" * 32})
    assert identity.maker(ensemble).device_uid != identity.maker(CARD).device_uid


def test_a_report_names_the_order_that_it_answers(reading: Reading, out: Path) -> None:
    def ordered(_: int, ds: Dataset) -> None:
        item = Dataset()
        item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP7", "SPS1"
        ds.RequestAttributesSequence = [item]

    encode(reading(ordered), out, "sr")
    (asked,) = dcmread(out / "sr.dcm").ReferencedRequestSequence
    assert (asked.RequestedProcedureID, asked.AccessionNumber) == ("RP7", "A1")
    assert complaints(out / "sr.dcm") == []
