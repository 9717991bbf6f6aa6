"""A phantom as DICOM."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from overread.domain.geometry import plane_of, stack
from overread.domain.study import Instance
from overread.simulate.phantom import ChestPhantom
from overread.simulate.study import affine_of, truth_of, write_study


def header(path: Path) -> Instance:
    d = dcmread(path, stop_before_pixels=True)
    return Instance(
        d.SOPInstanceUID,
        d.SOPClassUID,
        d.SeriesInstanceUID,
        d.StudyInstanceUID,
        path=str(path),
        rows=d.Rows,
        columns=d.Columns,
        frame_of_reference_uid=d.FrameOfReferenceUID,
        position=tuple(map(float, d.ImagePositionPatient)),
        orientation=tuple(map(float, d.ImageOrientationPatient)),
        pixel_spacing=tuple(map(float, d.PixelSpacing)),
    )


def test_the_slices_stack_to_the_phantom_where_its_affine_says(phantom: ChestPhantom, study: list[Path]) -> None:
    stacked = stack([header(p) for p in reversed(study[1:])])
    assert stacked.shape == phantom.grid.shape
    assert stacked.spacing_mm == pytest.approx(phantom.grid.spacing_mm)
    np.testing.assert_allclose(stacked.affine, affine_of(phantom), atol=1e-4)
    for instance, hu in zip(stacked.instances, phantom.hu, strict=True):
        d = dcmread(instance.path)
        np.testing.assert_array_equal(d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept), hu)


def test_the_localizer_is_a_coronal_series_of_its_own_with_the_head_up(study: list[Path]) -> None:
    scout, first, last = dcmread(study[0]), dcmread(study[1]), dcmread(study[-1])
    assert list(scout.ImageType) == ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert plane_of(header(study[0])) == "coronal"
    assert scout.SeriesInstanceUID != first.SeriesInstanceUID
    assert scout.StudyInstanceUID == first.StudyInstanceUID
    assert scout.ImagePositionPatient[2] == last.ImagePositionPatient[2] > first.ImagePositionPatient[2]
    assert (scout.Rows, scout.Columns) == (24, 64)


def test_the_same_arguments_give_the_same_bytes_and_another_salt_other_uids(
    phantom: ChestPhantom, study: list[Path], tmp_path: Path
) -> None:
    again = write_study(phantom, tmp_path / "again", seed=7, localizer=True)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in study]
    other = write_study(phantom, tmp_path / "other", seed=7, uid_salt="x")
    assert dcmread(other[0]).StudyInstanceUID != dcmread(study[0]).StudyInstanceUID
    uids = {dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in (*study, *other)}
    assert len(uids) == len(study) + len(other)
    assert all(uid.is_valid for uid in uids)


def test_it_calls_itself_a_phantom(study: list[Path]) -> None:
    d = dcmread(study[1], stop_before_pixels=True)
    assert (str(d.PatientName), d.PatientID) == ("PHANTOM^CHEST", "PHANTOM-7")


def test_the_truth_lies_beside_it(phantom: ChestPhantom, study: list[Path], tmp_path: Path) -> None:
    truth = truth_of(study[0].parent)
    np.testing.assert_array_equal(truth.labels, phantom.truth)
    np.testing.assert_allclose(truth.affine, affine_of(phantom))
    assert truth.nodules == phantom.nodules
    with pytest.raises(FileNotFoundError):
        truth_of(tmp_path)


def test_dciodvfy_finds_no_error(study: list[Path]) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("dciodvfy is not installed")
        pytest.skip("dciodvfy is not installed")
    for path in (study[0], study[1], study[12]):
        told = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False).stderr
        assert "CTImage" in told
        assert "Error" not in told, told
