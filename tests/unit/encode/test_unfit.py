"""A study that could not be analysed: the report says so, and belongs to the patient."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.encode.unfit import encode_unfit
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


@pytest.fixture
def made(tiny_ct: list[Path], tmp_path: Path) -> tuple[Result, Dataset, list[Instance]]:
    instances = [read_file(path) for path in tiny_ct[1:]]
    made_at = "2026-01-05T08:00:00+00:00"
    result = encode_unfit(CARD, instances, tiny_ct[1], REASON, tmp_path, key="the input", made_at=made_at)
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
        made_at = "2026-01-05T08:00:00+00:00"
        encode_unfit(CARD, instances, tiny_ct[1], REASON, tmp_path / name, key="the input", made_at=made_at)
    assert (tmp_path / "a" / "unfit.dcm").read_bytes() == (tmp_path / "b" / "unfit.dcm").read_bytes()


def test_dciodvfy_finds_no_error(made: tuple[Result, Dataset, list[Instance]], tmp_path: Path) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed")
    checked = subprocess.run([tool, str(tmp_path / made[0].path)], capture_output=True, text=True, check=False)
    assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []
