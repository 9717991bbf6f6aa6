"""Studies that stand for nobody: DICOM files under UIDs and a name that say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread

from overread.domain.canary import DESCRIPTION, PATIENT_ID, PATIENT_NAME


def mark(files: Sequence[Path], folder: Path, study_uid: str) -> list[Path]:
    """Copies of ``files`` in ``folder``, all of one study ``study_uid``; series and instances are numbered below it.

    The patient is the canary, whoever it was before. Returns the copies in the order of ``files``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series: dict[str, int] = {}
    copies = []
    for number, path in enumerate(files, 1):
        dataset = dcmread(path)
        at = series.setdefault(str(dataset.get("SeriesInstanceUID", "")), len(series) + 1)
        _name(dataset, study_uid, at, number)
        copies.append(folder / f"{number:05d}.dcm")
        dataset.save_as(copies[-1], enforce_file_format=True)
    return copies


def _name(dataset: Dataset, study_uid: str, series: int, number: int) -> None:
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = f"{study_uid}.{series}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study_uid}.{series}.{number}"
    if "FrameOfReferenceUID" in dataset:
        dataset.FrameOfReferenceUID = f"{study_uid}.0"
    dataset.PatientID, dataset.PatientName = PATIENT_ID, PATIENT_NAME
    dataset.PatientBirthDate, dataset.AccessionNumber = "", ""
    dataset.StudyDescription = DESCRIPTION
