"""highdicom is the authority: what is written by hand equals what it makes, attribute by attribute."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain.findings import Findings
from overread.domain.variant import Variant
from overread.encode import multiframe, seal
from overread.encode.frames import Pixels
from overread.encode.layers import layers
from overread.encode.segments import describe
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

from .conftest import SHAPE, header, mask, segments, volume_of, write

Series = Callable[..., Read]
RANDOM = {"DimensionOrganizationUID", "ContributionDateTime", "InstanceCreationTime", "InstanceCreationDate"}


@pytest.fixture
def series(tmp_path: Path) -> Series:
    """``series(found, downwards)``: a reading whose grid is that of ``found``."""

    def make(found: np.ndarray, *, downwards: bool = False, gap: bool = False) -> Read:
        paths = []
        for k in range(len(found)):
            ds = header(k)
            _, ds.Rows, ds.Columns = found.shape
            ds.ImagePositionPatient = [-10.25, -20, round(100 + 2.5 * k, 2)]
            if downwards:  # the normal points to the feet: columns run the other way
                ds.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
                ds.ImagePositionPatient = [10.25, -20, round(100 - 2.5 * k, 2)]
            ds.PixelData = bytes(2 * ds.Rows * ds.Columns)
            paths.append(write(ds, tmp_path / f"{k:03}.dcm"))
        from .conftest import CARD

        volume = volume_of(paths, np.zeros(found.shape, np.int16))
        held = set(np.unique(found).tolist())
        listed = tuple(s for s in segments(found) if s.value in held)
        return Read("key", "2026-11-21T08:09:10+00:00", CARD, volume, Findings(found, listed))

    return make


def _grown(rows: int, columns: int, slices: int = 5) -> np.ndarray:
    found = np.zeros((slices, rows, columns), np.uint8)
    found[1:4, 2:7, 1:6] = 1
    found[0:3, 3 : rows - 1, columns - 3 : columns] = 2
    found[-1, rows - 2 : rows, :] = 3
    found[2, 0, 0] = 4
    return found


def _single(rows: int, columns: int) -> np.ndarray:
    return np.where(_grown(rows, columns) == 1, 1, 0).astype(np.uint8)


def _gap() -> np.ndarray:
    found = _single(8, 8)
    found[2] = 0
    return found


FOUND = {
    "frames that share bytes": mask(),
    "whole bytes": _grown(16, 16),
    "rows of odd length": _grown(33, 37),
    "full frames": np.ones((3, 7, 9), np.uint8),
    "one segment": _single(16, 16),
    "one segment, odd": _single(9, 7),
    "a hole between slices": _gap(),
    "one voxel": np.pad(np.ones((1, 1, 1), np.uint8), 2),
}
VARIANTS = [
    *("binary", "binary-full", "labelmap", "labelmap-full", "labelmap-rle", "labelmap-jpeg2000"),
    *("binary-jpeg2000", "fractional", "fractional-full", "fractional-rle"),
]


def _probabilities(read: Read) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(5)
    noise = rng.random(read.findings.mask.shape).astype(np.float16)
    return {
        s.value: np.where(read.findings.mask == s.value, noise, 0).astype(np.float16) for s in read.findings.segments
    }


def _written(read: Read, variant: Variant, path: Path) -> Dataset:
    sources = read_sources(read.volume)
    (layer,) = layers(read.findings)
    descriptions = [describe(s, n, read) for n, s in enumerate(layer.segments, 1)]
    pixels = Pixels(layer, _probabilities(read))
    made = multiframe.build(sources, pixels, variant, descriptions, **_options(read, sources))
    made.write(path)
    return dcmread(path)


def _authority(read: Read, variant: Variant, path: Path) -> Dataset:
    sources = read_sources(read.volume)
    found = read.findings
    pixels = found.mask
    options = {}
    if variant.method == "fractional":
        planes = [np.rint(p.astype(np.float32) * 255) / 255 for p in _probabilities(read).values()]
        pixels = np.stack(planes, axis=-1).astype(np.float32)
        options = {"fractional_type": "PROBABILITY", "max_fractional_value": 255}
    made = highdicom.seg.Segmentation(
        source_images=sources.standins,
        pixel_array=pixels,
        segmentation_type=variant.method.upper(),
        segment_descriptions=[describe(s, n, read) for n, s in enumerate(found.segments, 1)],
        omit_empty_frames=not variant.full,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **options,
        **_options(read, sources),
    )
    made.save_as(path)
    return dcmread(path)


def _options(read: Read, sources: Sources) -> dict[str, object]:
    return {"content_label": "SEGMENTATION", **seal.header(read, sources, "seg", "seg")}


def _other_pixels(a: Dataset, b: Dataset) -> Iterator[str]:
    if a.file_meta.TransferSyntaxUID.is_encapsulated:
        if not np.array_equal(a.pixel_array, b.pixel_array):
            yield "other pixels"
        return
    used = -(-int(a.NumberOfFrames) * a.Rows * a.Columns * a.BitsAllocated // 8)
    if len(a.PixelData) != len(b.PixelData) or a.PixelData[:used] != b.PixelData[:used]:  # the library pads with 0x30
        yield "other bytes of pixels"
    if a["PixelData"].VR != b["PixelData"].VR:
        yield "another VR of pixels"


def _differences(a: Dataset, b: Dataset, where: str = "") -> Iterator[str]:
    for tag in sorted({*a.keys(), *b.keys()}):
        name = f"{where}/{(a if tag in a else b)[tag].keyword}"
        if tag not in a or tag not in b:
            yield f"{name} in one only"
            continue
        x, y = a[tag], b[tag]
        if x.keyword in RANDOM:
            continue
        if x.keyword == "PixelData":
            yield from _other_pixels(a, b)
        elif x.VR != y.VR:
            yield f"{name}: VR {x.VR} {y.VR}"
        elif x.VR == "SQ":
            if len(x.value) != len(y.value):
                yield f"{name}: {len(x.value)} and {len(y.value)} items"
            for n, (p, q) in enumerate(zip(x.value, y.value, strict=False)):
                yield from _differences(p, q, f"{name}[{n}]")
        elif x.value != y.value:
            yield f"{name}: {x.value!r} {y.value!r}"


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_each_attribute_is_what_highdicom_makes(series: Series, tmp_path: Path, name: str, found: np.ndarray) -> None:
    read = series(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = (f(read, Variant.of(name), tmp_path / f"{f.__name__}.dcm") for f in (_written, _authority))
    assert list(_differences(ours, theirs)) == []


@pytest.mark.parametrize("name", ["binary", "labelmap"])
def test_slices_that_lie_the_other_way_are_in_highdicoms_order(series: Series, tmp_path: Path, name: str) -> None:
    read = series(mask(), downwards=True)
    ours, theirs = (f(read, Variant.of(name), tmp_path / f"{f.__name__}.dcm") for f in (_written, _authority))
    assert list(_differences(ours, theirs)) == []


def test_the_file_is_deflated_and_small(series: Series, tmp_path: Path) -> None:
    read = series(_grown(256, 256, 12))
    seg = _written(read, Variant(), tmp_path / "seg.dcm")
    assert seg.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
    assert (tmp_path / "seg.dcm").stat().st_size < len(seg.PixelData) / 10
    assert (tmp_path / "seg.dcm").stat().st_size % 2 == 0


def test_frames_of_one_bit_are_never_compressed_by_rle() -> None:
    with pytest.raises(ValueError, match="labelmap-rle"):
        Variant.of("binary-rle")
    assert SHAPE[1] * SHAPE[2] % 8
