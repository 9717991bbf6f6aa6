"""However a pixel is stored, its value is the one that the header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from slices import CT, DX, ENHANCED_MR, MR, US_CINE, base, groups, place, placed, stored

from overread.domain.card import Accepts
from overread.domain.errors import Unfit
from overread.load.series import load
from overread.spool import Spool

ROW, COLUMN, PIXEL = (1, 0, 0), (0, 1, 0), (1.5, 0.5)
RNG = np.random.default_rng(3)


def pair(pixels: np.ndarray, sop_class: str = MR, modality: str = "MR", **values: Any) -> list:
    """Two slices that differ by one in a corner."""
    other = pixels.copy()
    other[0, 0] += 1
    made = [base(n + 1, p, sop_class, modality, **values) for n, p in enumerate((pixels, other))]
    for n, ds in enumerate(made):
        place(ds, (0, 0, 2.0 * n), ROW, COLUMN, PIXEL)
    return made


def test_overlays_in_the_bits_above_are_masked(tmp_path: Path, spool: Spool) -> None:
    values = RNG.integers(0, 4095, (6, 7)).astype("<u2")
    made = pair(values | np.uint16(0x3000), BitsStored=12, HighBit=11)
    volume = load(spool, stored(tmp_path / "in", made))
    assert (volume.voxels.dtype, volume.unit) == (np.int16, "")
    np.testing.assert_array_equal(volume.voxels[0], values)


def test_bits_that_sit_higher_come_down(tmp_path: Path, spool: Spool) -> None:
    values = RNG.integers(0, 1023, (6, 7)).astype("<u2")
    made = pair(values << 6, BitsStored=10, HighBit=15)
    np.testing.assert_array_equal(load(spool, stored(tmp_path / "in", made[:1] + made[1:])).voxels[0], values)


def test_a_sign_in_the_middle_of_a_word_counts(tmp_path: Path, spool: Spool) -> None:
    values = RNG.integers(-2048, 2047, (6, 7))
    made = pair((values & 0x0FFF).astype("<u2"), BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(load(spool, stored(tmp_path / "in", made)).voxels[0], values)


@pytest.mark.parametrize("kind", ["|u1", "<u2", "<u4", "<i4"])
def test_every_size_of_a_word_is_read(tmp_path: Path, spool: Spool, kind: str) -> None:
    values = RNG.integers(0, 200, (6, 8)).astype(kind)
    np.testing.assert_array_equal(load(spool, stored(tmp_path / "in", pair(values))).voxels[0], values)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name
)
def test_every_uncompressed_syntax_is_read(tmp_path: Path, spool: Spool, syntax: Any) -> None:
    values = RNG.integers(-500, 3000, (6, 8)).astype("<i2")
    made = pair(values, CT, "CT", RescaleIntercept="-10", RescaleSlope="1")
    for ds in made:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
            ds["PixelData"].VR = "OW"
    volume = load(spool, stored(tmp_path / "in", made))
    np.testing.assert_array_equal(volume.voxels[0], np.maximum(values.astype(int) - 10, -1024))


def test_a_private_copy_of_the_pixels_description_is_not_mistaken_for_it(tmp_path: Path, spool: Spool) -> None:
    """An icon before the description has the same tags: reading may not start there."""
    values = RNG.integers(0, 500, (6, 8)).astype("<u2")
    made = pair(values, RescaleSlope="1", RescaleIntercept="7")
    for ds in made:
        icon = Dataset()
        icon.SamplesPerPixel, icon.Rows, icon.Columns, icon.BitsAllocated, icon.BitsStored = 1, 2, 2, 8, 8
        icon.HighBit, icon.PixelRepresentation, icon.PhotometricInterpretation = 7, 0, "MONOCHROME2"
        icon.PixelData = b"\1\2\3\4"
        icon["PixelData"].VR = "OB"
        block = ds.private_block(0x0021, "SOMEBODY", create=True)
        block.add_new(1, "SQ", [icon])
    np.testing.assert_array_equal(load(spool, stored(tmp_path / "in", made)).voxels[0], values + 7)


def test_bright_is_high_in_a_projection_whatever_the_detector_says(tmp_path: Path, spool: Spool) -> None:
    values = RNG.integers(0, 1023, (6, 8)).astype("<u2")
    ds = base(1, values, DX, "DX", PhotometricInterpretation="MONOCHROME1", BitsStored=10, HighBit=9)
    ds.ImagerPixelSpacing = ["0.2", "0.1"]
    volume = load(spool, stored(tmp_path / "in", [ds]), Accepts("DX", kind="image"))
    np.testing.assert_array_equal(volume.voxels[0], 1023 - values.astype(int))
    assert (volume.kind, volume.placed, volume.frame_of_reference_uid) == ("image", False, "")
    assert (volume.spacing_mm[1:], volume.stack.spacing_from) == ((0.2, 0.1), "ImagerPixelSpacing")
    assert volume.voxels.shape == (1, 6, 8)


def test_padding_around_a_breast_becomes_the_darkest(tmp_path: Path, spool: Spool) -> None:
    values = np.full((6, 8), 300, "<u2")
    values[:, :2], values[0, 5] = 4095, 100
    ds = base(1, values, DX, "MG", BitsStored=12, HighBit=11)
    ds.add_new("PixelPaddingValue", "US", 4095)
    voxels = load(spool, stored(tmp_path / "in", [ds]), Accepts("MG", kind="image")).voxels
    assert (voxels[0, 0, 0], voxels[0, 0, 5], voxels[0, 3, 3]) == (100, 100, 300)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_film_in_colours_comes_as_frames_of_brightness(tmp_path: Path, spool: Spool, compressed: bool) -> None:
    colours = RNG.integers(0, 255, (4, 6, 8, 3)).astype("|u1")
    ds = base(1, colours, US_CINE, "US", NumberOfFrames=4, FrameTime="40")
    if compressed:
        ds.compress(RLELossless, generate_instance_uid=False)
    volume = load(spool, stored(tmp_path / "in", [ds]), Accepts("US", kind="frames"))
    assert (volume.kind, volume.voxels.shape) == ("frames", (4, 6, 8))
    np.testing.assert_allclose(volume.frame_times_s, [0, 0.04, 0.08, 0.12])
    expected = np.rint(colours @ np.array([0.299, 0.587, 0.114], np.float32))
    np.testing.assert_array_equal(volume.voxels, expected)
    assert volume.sources[2] == (ds.SOPInstanceUID, 3)


def test_each_frame_of_an_enhanced_image_has_its_own_slope(tmp_path: Path, spool: Spool) -> None:
    pixels = RNG.integers(0, 500, (3, 6, 8)).astype("<u2")
    ds = base(1, pixels, ENHANCED_MR, "MR", NumberOfFrames=3)
    frames = [
        placed((0, 0, 3.0 * k), ROW, COLUMN, PIXEL)
        | {"PixelValueTransformationSequence": {"RescaleSlope": f"{1 + k / 2}", "RescaleIntercept": f"{k}"}}
        for k in range(3)
    ]
    ds.PerFrameFunctionalGroupsSequence = groups(frames)
    volume = load(spool, stored(tmp_path / "in", [ds]))
    expected = pixels * (1 + np.arange(3) / 2)[:, None, None] + np.arange(3)[:, None, None]
    np.testing.assert_allclose(volume.voxels, expected)


def test_shared_functional_groups_count_for_every_frame(tmp_path: Path, spool: Spool) -> None:
    pixels = RNG.integers(0, 500, (3, 6, 8)).astype("<u2")
    ds = base(1, pixels, ENHANCED_MR, "MR", NumberOfFrames=3)
    whole = [placed((0, 0, -3.0 * k), ROW, COLUMN, PIXEL) for k in range(3)]
    ds.SharedFunctionalGroupsSequence = groups([{k: v for k, v in whole[0].items() if k != "PlanePositionSequence"}])
    ds.PerFrameFunctionalGroupsSequence = groups([{"PlanePositionSequence": f["PlanePositionSequence"]} for f in whole])
    volume = load(spool, stored(tmp_path / "in", [ds]))
    np.testing.assert_array_equal(volume.voxels, pixels[::-1])
    assert [number for _, number in volume.sources] == [3, 2, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "PerFrameFunctionalGroupsSequence", ds.PerFrameFunctionalGroupsSequence[:2]), "for 2"),
        (lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"), "no usable ImagePositionPatient"),
    ],
)
def test_functional_groups_that_do_not_fit_are_refused(tmp_path: Path, spool: Spool, change: Any, reason: str) -> None:
    ds = base(1, np.zeros((3, 6, 8), "<u2"), ENHANCED_MR, "MR", NumberOfFrames=3)
    ds.PerFrameFunctionalGroupsSequence = groups([placed((0, 0, 3.0 * k), ROW, COLUMN, PIXEL) for k in range(3)])
    change(ds)
    with pytest.raises(Unfit, match=reason):
        load(spool, stored(tmp_path / "in", [ds]))


def test_a_table_instead_of_a_slope_is_refused(tmp_path: Path, spool: Spool) -> None:
    made = pair(np.zeros((6, 8), "<u2"))
    for ds in made:
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [2, 0, 16], "US"
        table.add_new("LUTData", "OW", b"\0\1\0\2")
        ds.ModalityLUTSequence = [table]
    with pytest.raises(Unfit, match="through a table"):
        load(spool, stored(tmp_path / "in", made))


def test_a_compression_that_nobody_here_knows_is_named(tmp_path: Path, spool: Spool) -> None:
    made = pair(np.zeros((6, 8), "<u2"))
    for ds in made:
        ds.compress(RLELossless, generate_instance_uid=False)
    instances = stored(tmp_path / "in", made)
    for instance in instances:
        path = Path(instance.path)
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.9\0"))
    with pytest.raises(Unfit, match=r"its compression \(1.2.840.10008.1.2.9\) cannot be decoded here"):
        load(spool, instances)
