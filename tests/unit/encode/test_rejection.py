"""What a later result replaces is named by it, and taken back where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from overread.domain.result import Result
from overread.encode import encoders
from overread.ports import Read

from .conftest import complaints, tool

Reading = Callable[..., Read]
SEG, SR, KO = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.59"
LABEL_MAP, STUDY = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.826.0.1.3680043.8.498.2"


def old(kind: str, sop_class: str, uid: str, alternative: str = "", variant: str = "") -> Result:
    return Result(kind, sop_class, uid, "1.2.5", STUDY, "1.2.840.10008.1.2.1", "", "", alternative, variant)


EARLIER = (
    old("seg", SEG, "1.2.6.1", "seg/1", "binary"),
    old("seg", LABEL_MAP, "1.2.6.2", "seg/1", "labelmap"),
    old("sr", SR, "1.2.6.3", "sr", "binary"),
    old("sr", SR, "1.2.6.4", "sr", "labelmap"),
    old("rejection", KO, "1.2.6.5"),
)


def encode(read: Read, folder: Path) -> dict[tuple[str, str], Result]:
    results: list[Result] = []
    for encoder in encoders(["seg", "sr", "rejection"]):
        results.extend(encoder.encode(read, folder, results))
    return {(r.kind, r.variant): r for r in results}


def test_the_report_names_the_one_before_it(reading: Reading, out: Path) -> None:
    read = replace(reading(), variants=("labelmap", "binary"), superseded=EARLIER)
    results = encode(read, out)
    for variant, uid in (("binary", "1.2.6.3"), ("labelmap", "1.2.6.4")):
        report = dcmread(out / results["sr", variant].path)
        (study,) = report.PredecessorDocumentsSequence
        assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uid


def test_another_predecessor_makes_another_report(reading: Reading, out: Path) -> None:
    read = reading()
    alone = encode(read, out)["sr", "binary"].sop_instance_uid
    assert encode(replace(read, superseded=EARLIER), out)["sr", "binary"].sop_instance_uid != alone


def test_a_note_takes_back_what_the_destination_may_have(reading: Reading, out: Path) -> None:
    results = encode(replace(reading(), superseded=EARLIER), out)
    note = dcmread(out / results["rejection", "binary"].path)
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert note.Modality == "KO"
    named = [
        str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for i in note.ContentSequence
        if "ReferencedSOPSequence" in i
    ]
    assert named == ["1.2.6.1", "1.2.6.3"]
    assert note.PatientID == "P1"
    assert results["rejection", "binary"].alternative == "rejection"


def test_nothing_is_taken_back_when_nothing_is_replaced(reading: Reading, out: Path) -> None:
    assert [kind for kind, _ in encode(reading(), out)] == ["seg", "sr"]


def test_a_result_never_takes_itself_back(reading: Reading, out: Path) -> None:
    read = reading()
    made = tuple(encode(read, out).values())
    assert ("rejection", "binary") not in encode(replace(read, superseded=made[:1]), out)


def test_dciodvfy_finds_no_error(reading: Reading, out: Path) -> None:
    tool("dciodvfy")
    results = encode(replace(reading(), superseded=EARLIER), out)
    assert complaints(out / results["rejection", "binary"].path) == []
    assert complaints(out / results["sr", "binary"].path) == []
