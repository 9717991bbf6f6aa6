"""SUVbw is computed when the series says all that it takes, and refused with the attribute that lacks otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain.card import Label
from overread.domain.codes import MAXIMUM, Code
from overread.domain.errors import Unfit
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.measure.suv import factor, measure

LABEL = Label(1, "Lesion", Code("27925004", "SCT", "Nodule"), features=("suvbw",))
PET = "1.2.840.10008.5.1.4.1.1.128"
HALF_LIFE_S = 6586.2  # fluorine-18


def header() -> Dataset:
    """70 kg, 350 MBq of FDG at 9:00, scanned at 10:00."""
    ds = Dataset()
    ds.Modality, ds.Units, ds.DecayCorrection = "PT", "BQML", "START"
    ds.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY"]
    ds.PatientWeight = "70"
    ds.SeriesDate = ds.AcquisitionDate = "20260105"
    ds.SeriesTime, ds.AcquisitionTime = "100000", "100000.50"
    dose = Dataset()
    dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = "350000000", str(HALF_LIFE_S)
    dose.RadiopharmaceuticalStartTime = "090000"
    ds.RadiopharmaceuticalInformationSequence = [dose]
    return ds


def dose(ds: Dataset) -> Dataset:
    item: Dataset = ds.RadiopharmaceuticalInformationSequence[0]
    return item


def expected(hours: float) -> float:
    return 70_000 / (350e6 * 2 ** (-hours * 3600 / HALF_LIFE_S))


def test_activity_is_decayed_from_the_injection_to_the_scan() -> None:
    assert factor([header()]) == pytest.approx(expected(1))


def test_a_series_made_anew_later_counts_from_its_earliest_acquisition() -> None:
    first, second = header(), header()
    first.SeriesTime = second.SeriesTime = "180000"
    second.AcquisitionTime = "101000"
    assert factor([second, first]) == pytest.approx(expected(1 + 0.5 / 3600))


def test_an_injection_before_midnight_is_of_the_day_before() -> None:
    ds = header()
    ds.SeriesTime = ds.AcquisitionTime = "003000"
    dose(ds).RadiopharmaceuticalStartTime = "233000"
    assert factor([ds]) == pytest.approx(expected(1))
    dose(ds).RadiopharmaceuticalStartDateTime = "20260104233000.000000+0100"
    assert factor([ds]) == pytest.approx(expected(1))


def test_pixels_corrected_to_the_administration_need_no_decay() -> None:
    ds = header()
    ds.DecayCorrection = "ADMIN"
    assert factor([ds]) == pytest.approx(expected(0))


def test_pixels_that_are_suv_already_stay() -> None:
    ds = header()
    ds.Units = "GML"
    assert factor([ds]) == 1.0
    ds.SUVType = "LBM"
    with pytest.raises(Unfit, match="SUVType is LBM"):
        factor([ds])


def _no_weight(ds: Dataset) -> None:
    ds.PatientWeight = None


def _no_half_life(ds: Dataset) -> None:
    del dose(ds).RadionuclideHalfLife


def _no_injection(ds: Dataset) -> None:
    del dose(ds).RadiopharmaceuticalStartTime


def _two_doses(ds: Dataset) -> None:
    ds.RadiopharmaceuticalInformationSequence = [dose(ds), dose(ds)]


def _yesterday(ds: Dataset) -> None:
    dose(ds).RadiopharmaceuticalStartDateTime = "20260103090000"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda ds: setattr(ds, "Modality", "CT"), "Modality is CT"),
        (lambda ds: setattr(ds, "Units", "CNTS"), "Units is CNTS"),
        (lambda ds: setattr(ds, "CorrectedImage", ["NORM", "DECY"]), "does not contain ATTN"),
        (lambda ds: setattr(ds, "CorrectedImage", "ATTN"), "does not contain DECY"),
        (lambda ds: setattr(ds, "DecayCorrection", "NONE"), "DecayCorrection is NONE"),
        (lambda ds: setattr(dose(ds), "RadionuclideTotalDose", "0"), "RadionuclideTotalDose is missing or not"),
        (lambda ds: delattr(ds, "SeriesTime"), "SeriesTime is missing"),
        (_no_weight, "PatientWeight is missing or not positive"),
        (_no_half_life, "RadionuclideHalfLife is missing"),
        (_no_injection, "RadiopharmaceuticalStartTime is missing"),
        (_two_doses, "has 2 items"),
        (_yesterday, "not within the 24 hours"),
    ],
)
def test_what_lacks_is_named(change: Callable[[Dataset], None], named: str) -> None:
    ds = header()
    change(ds)
    with pytest.raises(Unfit, match=named):
        factor([ds])


def test_suvbw_is_measured_over_the_mask_with_its_code_and_unit(tmp_path: Path) -> None:
    paths, instances = [], []
    for k in range(3):
        path = tmp_path / f"{k}.dcm"
        ds = header()
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = PET, f"1.2.{k + 1}"
        FileDataset(str(path), ds, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
        paths.append(str(path))
        place = {"position": (0.0, 0.0, 4.0 * k), "orientation": (1.0, 0, 0, 0, 1.0, 0), "pixel_spacing": (4.0, 4.0)}
        instances.append(
            Instance(f"1.2.{k + 1}", PET, "1.3", "1.4", modality="PT", rows=4, columns=4, **place)
        )
    voxels = np.zeros((3, 4, 4), np.float32)
    voxels[1, 1, 1] = 10_000.0
    volume = Volume(voxels, stack(instances), tuple(paths))
    numbers = measure(volume, voxels > 0, LABEL)
    assert {(m.name.value, m.name.scheme, m.unit.value) for m in numbers} == {("126401", "DCM", "g/ml{SUVbw}")}
    (highest,) = [m.value for m in numbers if m.derivation == MAXIMUM]
    assert highest == pytest.approx(10_000 * expected(1), rel=1e-5)
    assert measure(volume, voxels > 0, replace(LABEL, features=())) == ()
