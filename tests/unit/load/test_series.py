"""Files in the spool become a volume in Hounsfield units on their own grid, or there is a reason why not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from overread.domain.errors import Stumbled, Unfit
from overread.domain.study import Instance
from overread.load import decode
from overread.load.series import load
from overread.simulate.phantom import ChestPhantom
from overread.simulate.study import affine_of
from overread.spool import Spool
from overread.spool.header import read_file

Change = Callable[[int, pydicom.Dataset], None]


@pytest.fixture
def brought(spool: Spool, tiny_ct: list[Path]) -> Callable[..., list[Instance]]:
    """``brought(change)``: the phantom's files in the spool, each altered by ``change(k, dataset)``; their headers."""

    def bring(change: Change | None = None, *, localizer: bool = False, damaged: bool = False) -> list[Instance]:
        found = []
        for k, source in enumerate(tiny_ct if localizer else tiny_ct[1:]):
            target = spool.root / "instances" / f"{k}.dcm"
            if change is None:
                shutil.copy(source, target)
            else:
                dataset = pydicom.dcmread(source)
                change(k, dataset)
                dataset.save_as(target)
            # As it was when it came: what the listener would refuse today may lie in a spool all the same.
            found.append(replace(read_file(source if damaged else target), path=f"instances/{k}.dcm"))
        return found

    return bring


def test_voxels_and_affine_are_those_of_the_phantom(
    spool: Spool, brought: Callable, tiny_phantom: ChestPhantom
) -> None:
    volume = load(spool, brought()[::-1])
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, np.maximum(tiny_phantom.hu, -1024))
    np.testing.assert_allclose(volume.affine, affine_of(tiny_phantom), atol=1e-5)
    assert [Path(p).name for p in volume.paths] == [f"{k}.dcm" for k in range(12)]
    assert volume.voxel_ml == pytest.approx(0.9)


def test_a_localizer_among_the_slices_is_left_out(spool: Spool, brought: Callable) -> None:
    assert load(spool, brought(localizer=True)).stack.shape == (12, 32, 40)


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(
    spool: Spool, brought: Callable, tiny_phantom: ChestPhantom
) -> None:
    """PET does it so; here the stored values are the same and the slopes differ."""

    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.Modality = "PT"
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + k / 4), str(-10 * k)

    voxels = load(spool, brought(change)).voxels
    stored = np.clip(tiny_phantom.hu.astype(np.float32) + 1024, 0, 4095)
    slopes, intercepts = 1 + np.arange(12) / 4, -10.0 * np.arange(12)
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(voxels, stored * slopes[:, None, None] + intercepts[:, None, None], rtol=1e-6)


def test_values_beyond_sixteen_bits_stay_floats(spool: Spool, brought: Callable) -> None:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        dataset.Modality, dataset.RescaleSlope = "PT", "1000"

    voxels = load(spool, brought(change)).voxels
    assert voxels.dtype == np.float32
    assert voxels.max() > 32767


@pytest.mark.parametrize(("first", "last", "padded"), [(0, None, [0]), (1, 3, [1, 2, 3]), (3, 1, [1, 2, 3])])
def test_padding_becomes_air(spool: Spool, brought: Callable, first: int, last: int | None, padded: list[int]) -> None:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        pixels = np.full((32, 40), 1100, "<u2")
        pixels[0, :5] = [0, 1, 2, 3, 4]
        dataset.PixelData = pixels.tobytes()
        dataset.add_new("PixelPaddingValue", "US", first)
        if last is not None:
            dataset.add_new("PixelPaddingRangeLimit", "US", last)
        dataset.RescaleIntercept = "-24"

    voxels = load(spool, brought(change)).voxels
    expected = [-1024 if value in padded else value - 24 for value in range(5)]
    assert voxels[0, 0, :5].tolist() == expected
    assert voxels[0, 1, 1] == 1076


def test_nothing_in_a_ct_is_less_than_air(spool: Spool, brought: Callable) -> None:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        dataset.RescaleIntercept = "-3000"

    assert load(spool, brought(change)).voxels.min() == -1024


def test_signed_pixels_stay_signed(spool: Spool, brought: Callable) -> None:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 1, 16, 15
        pixels = np.full((32, 40), -500, "<i2")
        pixels[0, 0] = -2000
        dataset.PixelData, dataset.RescaleIntercept = pixels.tobytes(), "0"
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)  # as some write it

    voxels = load(spool, brought(change)).voxels
    assert voxels[0, 0, 0] == -1024
    assert np.all(voxels[:, 1:] == -500)


def test_compressed_slices_are_decoded_in_a_process_of_their_own(
    spool: Spool, brought: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders crash on crafted streams: this process must not be the one that dies."""
    plain = load(spool, brought()).voxels
    compressed = brought(lambda _, dataset: dataset.compress(RLELossless))
    assert {i.transfer_syntax_uid for i in compressed} == {RLELossless}
    pids: list[set[int]] = []
    real = decode.ProcessPoolExecutor

    class Watched(real):  # type: ignore[valid-type,misc]
        def __exit__(self, *args: object) -> bool | None:
            pids.append(set(self._processes))
            return super().__exit__(*args)

    monkeypatch.setattr(decode, "ProcessPoolExecutor", Watched)
    np.testing.assert_array_equal(load(spool, compressed).voxels, plain)
    assert len(pids) == 1
    assert os.getpid() not in pids[0]


def test_a_compressed_slice_that_cannot_be_decoded_is_unfit(spool: Spool, brought: Callable) -> None:
    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.compress(RLELossless)
        if k == 5:
            dataset.PixelData = pydicom.encaps.encapsulate([b"\1\0\0\0\x40\0\0\0" + bytes(56) + b"\1" * 16])

    with pytest.raises(Unfit, match="a slice cannot be decoded"):
        load(spool, brought(change))


class Deed:
    """Does something in the process that it is sent to."""

    def __init__(self, *deed: object) -> None:
        self.deed = deed

    def __reduce__(self) -> tuple[object, ...]:
        return self.deed[0], self.deed[1:]


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (Deed(os._exit, 1), "the decoder process died while decoding compressed pixels"),
        (Deed(time.sleep, 60), "compressed pixels were not decoded within 1 s"),
    ],
    ids=["dies", "hangs"],
)
def test_a_decoder_that_dies_or_hangs_is_a_stumble(
    monkeypatch: pytest.MonkeyPatch, deed: Deed, reason: str
) -> None:
    monkeypatch.setattr(decode, "DECODE_S", 1.0 if deed.deed[0] is time.sleep else 60.0)
    started = time.monotonic()
    with pytest.raises(Stumbled, match=reason):
        list(decode.decode_all([(deed, [0])]))  # type: ignore[list-item]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda k, d: setattr(d, "PixelData", d.PixelData[:100]), "cannot be decoded"),
        (lambda k, d: delattr(d, "PixelData"), "cannot be decoded"),
        (lambda k, d: setattr(d, "RescaleSlope", [1, 2]), "cannot be decoded"),
        (lambda k, d: setattr(d, "RescaleSlope", "nan"), "no finite number"),
    ],
    ids=["truncated", "no pixels", "two slopes", "a slope that is none"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_slice_that_cannot_be_used_is_unfit(
    spool: Spool, brought: Callable, change: Change, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    with pytest.raises(Unfit, match=reason):
        load(spool, brought(change, damaged=True))


def test_colour_is_unfit(spool: Spool, brought: Callable) -> None:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = bytes(32 * 40 * 3)

    with pytest.raises(Unfit, match="not a single grey image"):
        load(spool, brought(change))


def test_a_missing_slice_is_unfit(spool: Spool, brought: Callable) -> None:
    instances = brought()
    with pytest.raises(Unfit, match="slices are missing or the spacing is irregular"):
        load(spool, [*instances[:5], *instances[6:]])


def test_a_tilted_gantry_is_unfit(spool: Spool, brought: Callable) -> None:
    def change(k: int, dataset: pydicom.Dataset) -> None:
        x, y, z = map(float, dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + 2 * k, z]

    with pytest.raises(Unfit, match="gantry tilt"):
        load(spool, brought(change))


def test_a_file_unlike_its_header_is_unfit(spool: Spool, brought: Callable, tiny_ct: list[Path]) -> None:
    instances = brought()
    with pytest.raises(Unfit, match=r"slice 1 has \(32, 40\) pixels, not \(32, 41\)"):
        load(spool, [replace(i, columns=41) for i in instances])


def test_a_file_that_is_gone_is_a_stumble(spool: Spool, brought: Callable) -> None:
    instances = brought()
    spool.absolute(instances[3].path).unlink()
    with pytest.raises(Stumbled, match=r"a slice is gone from the spool \(FileNotFoundError\)"):
        load(spool, instances)


def _series(folder: Path) -> list[Instance]:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".gz")):
        found.append(replace(read_file(path), path=str(path)))
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gantrytilting", "gantry tilt"),
        ("sliceincrement", "slices are missing"),
        ("sliceorientation", "differs between the slices"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_real_series_that_are_no_volume_are_refused(data: Path, spool: Spool, name: str, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        load(spool, _series(data / "geometry-odd" / name))


@pytest.mark.filterwarnings("ignore")
def test_a_real_series_with_gaps_between_its_slices_is_read(data: Path, spool: Spool) -> None:
    """8.75 mm apart and 7 mm thick: nothing is missing."""
    volume = load(spool, _series(data / "mr-liver-small"))
    assert volume.stack.shape == (30, 256, 256)
    assert volume.stack.spacing_mm[0] == pytest.approx(8.75, abs=0.01)
