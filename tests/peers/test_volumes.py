"""Every real series loads as an independent reader sees it, voxel by voxel and in its place, or says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overread.domain.volume import Volume
from overread.spool import Spool

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import volumes as table

pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install 'overread[dev]')")

# What is refused, and the words that say why.
REFUSED = {
    "geometry-odd/gantrytilting/001": "gantry tilt",
    "geometry-odd/sliceincrement/001": "slices are missing",
    "geometry-odd/sliceorientation/001": "differs between the slices",
    "ct-head-phantom-study/S21570/S1000": "it is a localizer",
    "ct-head-phantom-study/S21570/S4010": "it is a secondary capture",
    "transfer-syntaxes/other/will-jxl.dcm": "its compression (JPEG XL JPEG Recompression) cannot be decoded here",
    "enhanced-multiframe/emri_small.dcm": "no usable ImagePositionPatient",
}
LOADED = {
    "ct-chest-abdomen-cmb/CMB-CRC-MSB-01068": (100, 512, 512),
    "ct-head-phantom-study/S21570/S2010": (28, 512, 512),
    "mr-t1-defaced/example-dicom-structural": (384, 384, 274),
    "pet-wholebody-with-seg/rsna_2/PET": (299, 128, 128),
    "mr-liver-small": (30, 256, 256),
    "enhanced-multiframe/Philips": (32, 64, 64),
    "enhanced-multiframe/Siemens/XA10": (6, 64, 64),
    "transfer-syntaxes/nema-wg04/CT2_JPLL": (1, 512, 512),
    "transfer-syntaxes/nema-wg04/CT2_JLSL": (1, 512, 512),
}
SETS = (
    *("ct-chest-abdomen-cmb", "ct-head-phantom-study", "mr-t1-defaced", "pet-wholebody-with-seg", "mr-liver-small"),
    *("enhanced-multiframe", "geometry-odd", "transfer-syntaxes", "us-xray-misc", "not-for-ai", "ref-seg-sr"),
    *("malformed-real", "charsets"),
)


@pytest.fixture(scope="module", params=SETS)
def rows(data: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list]:
    scratch = tmp_path_factory.mktemp("volumes")
    spool = Spool(scratch / "spool", durable=False)
    found = []
    for name, instances in table.series_below(data, scratch / "unpacked", request.param):
        found += [(name, *result) for result in table.volumes(spool, instances)]
    yield found


@pytest.mark.filterwarnings("ignore")
def test_what_is_loaded_is_right_and_what_is_refused_says_why(rows: list) -> None:
    names = {name for name, *_ in rows}
    folder = next(iter(names)).partition("/")[0]
    assert {n for n in (*LOADED, *REFUSED) if n.partition("/")[0] == folder} <= names
    for name, _, _, result in rows:
        if isinstance(result, Volume):
            assert name not in REFUSED, f"{name} was to be refused"
            assert LOADED.get(name, result.voxels.shape) == result.voxels.shape
            try:
                told = table.differences(result)
            except RuntimeError:  # SimpleITK cannot read it at all
                continue
            assert told == "", f"{name}: {told}"
        else:
            assert REFUSED.get(name, result) in result, f"{name}: {result}"
            assert name not in LOADED, f"{name}: {result}"
            assert result
