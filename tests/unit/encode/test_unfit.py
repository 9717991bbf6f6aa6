"""A study that could not be analysed: the report says so, and belongs to the patient."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.provenance import Provenance, Style
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.encode import seal
from overread.encode.unfit import NOTHING, encode_unfit, unread
from overread.ports import Read
from overread.spool.header import read_file

CARD = Card(
    "ct_chest",
    "1.0.0",
    "overread ct_chest",
    "overread",
    "monai-bundle",
    "m.pt",
    "ab" * 32,
    Accepts("CT"),
    (Label(1, "Lung", Code("39607008", "SCT", "Lung")),),
    Path("models/ct_chest"),
)
REASON = "slices are missing or the spacing is irregular: 10.00 mm between slices 3 and 4, 5.00 mm elsewhere"


def reading(instances: list[Instance], first: Path, **more: Any) -> Read:
    return Read("the input", "2026-01-05T08:00:00+00:00", CARD, unread(instances, first), NOTHING, **more)


@pytest.fixture
def made(tiny_ct: list[Path], tmp_path: Path) -> tuple[Result, Dataset, list[Instance]]:
    instances = [read_file(path) for path in tiny_ct[1:]]
    result = encode_unfit(reading(instances, tiny_ct[1]), REASON, tmp_path)
    return result, dcmread(tmp_path / result.path), instances


def _texts(item: Dataset) -> list[str]:
    own = [str(item.TextValue)] if item.get("ValueType") == "TEXT" else []
    return own + [text for child in item.get("ContentSequence", []) for text in _texts(child)]


def test_the_reason_stands_in_the_report(made: tuple[Result, Dataset, list[Instance]]) -> None:
    _, report, _ = made
    assert _texts(report)[-1:] == [f"Could not be analysed by overread ct_chest 1.0.0: {REASON}."]
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert str(report.ContentTemplateSequence[0].TemplateIdentifier) == "1500"


def test_it_belongs_to_the_patient_and_names_the_images(made: tuple[Result, Dataset, list[Instance]]) -> None:
    result, report, instances = made
    source = dcmread(result.path) if Path(result.path).is_file() else report
    assert (result.kind, result.study_uid) == ("unfit", instances[0].study_uid)
    assert (source.PatientID, source.AccessionNumber) == ("PHANTOM-11", "P11")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named = {r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence}
    assert named == {i.sop_instance_uid for i in instances}


def test_the_same_input_gives_the_same_bytes(tiny_ct: list[Path], tmp_path: Path) -> None:
    instances = [read_file(path) for path in tiny_ct[1:]]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        encode_unfit(reading(instances, tiny_ct[1]), REASON, tmp_path / name)
    assert (tmp_path / "a" / "unfit.dcm").read_bytes() == (tmp_path / "b" / "unfit.dcm").read_bytes()


def test_dciodvfy_finds_no_error(made: tuple[Result, Dataset, list[Instance]], tmp_path: Path) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed")
    checked = subprocess.run([tool, str(tmp_path / made[0].path)], capture_output=True, text=True, check=False)
    assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []


def test_it_says_where_it_comes_from_and_follows_the_style(tiny_ct: list[Path], tmp_path: Path) -> None:
    origin, style = Provenance("aa", "bb", "cc", "dd"), Style(500, "AI: {title} {kind}")
    instances = [read_file(path) for path in tiny_ct[1:]]
    result = encode_unfit(reading(instances, tiny_ct[1], provenance=origin, style=style), REASON, tmp_path)
    report = dcmread(tmp_path / result.path)
    assert Provenance.of(result.provenance) == origin
    assert "weights=aa" in report.ContributingEquipmentSequence[-1].ContributionDescription
    assert report.SeriesDescription == "AI: overread ct_chest UNFIT"
    assert 500 <= report.SeriesNumber < 1400


def test_it_names_the_report_that_it_replaces(tiny_ct: list[Path], tmp_path: Path) -> None:
    instances = [read_file(path) for path in tiny_ct[1:]]
    before = Result("sr", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3", "1.2", instances[0].study_uid, "", "", "")
    result = encode_unfit(reading(instances, tiny_ct[1], superseded=(before,)), REASON, tmp_path)
    (study,) = dcmread(tmp_path / result.path).PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3"


def test_what_is_not_the_patients_does_not_pass_the_gate(
    tiny_ct: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = seal.seal

    def of_another(report: Dataset, *given: Any) -> None:
        sealed(report, *given)
        report.add_new("PatientID", "LO", "SOMEBODY")

    monkeypatch.setattr(seal, "seal", of_another)
    with pytest.raises(Misplaced, match="PatientID of the result differs from the source"):
        encode_unfit(reading([read_file(path) for path in tiny_ct[1:]], tiny_ct[1]), REASON, tmp_path)
