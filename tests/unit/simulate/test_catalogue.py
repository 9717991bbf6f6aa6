"""Answers to Study Root queries."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from overread.simulate.catalogue import Catalogue


def ask(level: str, **keys: object) -> Dataset:
    question = Dataset()
    question.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(question, key, value)
    return question


@pytest.fixture
def catalogue() -> Catalogue:
    """Study 1.1 with series 1.1.1 (3 CT) and 1.1.2 (1 SR); study 1.2 with series 1.2.1 (2 MR)."""
    made = Catalogue()
    for study, date, series, modality, count in (
        ("1.1", "20260101", "1.1.1", "CT", 3),
        ("1.1", "20260101", "1.1.2", "SR", 1),
        ("1.2", "20260301", "1.2.1", "MR", 2),
    ):
        for number in range(1, count + 1):
            header = Dataset()
            header.StudyInstanceUID, header.SeriesInstanceUID = study, series
            header.SOPInstanceUID = f"{series}.{number}"
            header.StudyDate, header.Modality, header.PatientName = date, modality, f"Phantom^{study[-1]}"
            made.add(header)
    return made


def uids(answers: list[Dataset], key: str) -> list[str]:
    return sorted(str(a[key].value) for a in answers)


def test_one_answer_for_each_study_series_and_image(catalogue: Catalogue) -> None:
    assert uids(catalogue.find(ask("STUDY", StudyInstanceUID="")), "StudyInstanceUID") == ["1.1", "1.2"]
    series = catalogue.find(ask("SERIES", StudyInstanceUID="1.1", SeriesInstanceUID=""))
    assert uids(series, "SeriesInstanceUID") == ["1.1.1", "1.1.2"]
    images = catalogue.find(ask("IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", SOPInstanceUID=""))
    assert uids(images, "SOPInstanceUID") == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]


def test_counts_and_modalities_are_of_the_whole_study(catalogue: Catalogue) -> None:
    question = ask(
        "STUDY",
        StudyInstanceUID="1.1",
        NumberOfStudyRelatedSeries="",
        NumberOfStudyRelatedInstances="",
        ModalitiesInStudy="",
    )
    (answer,) = catalogue.find(question)
    assert (answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances) == (2, 4)
    assert list(answer.ModalitiesInStudy) == ["CT", "SR"]


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        ({"StudyDate": "20260101"}, ["1.1"]),
        ({"StudyDate": "20260201-"}, ["1.2"]),
        ({"StudyDate": "-20260131"}, ["1.1"]),
        ({"StudyDate": "20251231-20270101"}, ["1.1", "1.2"]),
        ({"PatientName": "PHANTOM^*"}, ["1.1", "1.2"]),
        ({"PatientName": "phantom^?"}, ["1.1", "1.2"]),
        ({"PatientName": "NOBODY"}, []),
        ({"StudyInstanceUID": ["1.2", "1.9"]}, ["1.2"]),
        ({"ModalitiesInStudy": "SR"}, ["1.1"]),
        ({"ModalitiesInStudy": ["MR", "PT"]}, ["1.2"]),
    ],
)
def test_keys_match_as_the_standard_says(catalogue: Catalogue, keys: dict[str, object], studies: list[str]) -> None:
    question = ask("STUDY", **{"StudyInstanceUID": "", **keys})
    assert uids(catalogue.find(question), "StudyInstanceUID") == studies


def test_only_what_was_asked_comes_back_and_unknown_keys_come_back_empty(catalogue: Catalogue) -> None:
    (answer,) = catalogue.find(ask("STUDY", StudyInstanceUID="1.1", InstitutionName="", StudyDate=""))
    assert answer.StudyDate == "20260101"
    assert not answer.InstitutionName
    assert "PatientName" not in answer


def test_a_level_that_is_none_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match="level"):
        catalogue.find(ask("PATIENT"))
