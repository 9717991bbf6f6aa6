"""Every kind of object, of six real studies, is valid, and gives mask and numbers back to other people's tools."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from overread.domain.result import Result, roots
from overread.encode import encoders
from overread.ports import Read

from .conftest import inflated, tool
from .real import STUDIES, read_case, tolerant
from .test_dcmqi import program, read_nrrd

KINDS = ("seg", "map", "image", "gsps", "rtstruct", "sc", "pdf", "ko", "sr-viewer", "sr-data", "sr")
NOWHERE = ("gsps", "sc", "pdf", "ko", "sr-viewer", "sr-data", "sr")
IN_SPACE = ("CT", "MR", "PET", "enhanced MR")


@dataclass(frozen=True)
class Made:
    """What was made of one study, and what of."""

    name: str
    read: Read
    results: list[Result]
    folder: Path

    def of(self, kind: str) -> list[Path]:
        return [self.folder / r.path for r in self.results if r.kind == kind]


@pytest.fixture(scope="module", params=STUDIES, ids=[name.replace(" ", "-") for name in STUDIES])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> Made:
    folder = tmp_path_factory.mktemp("real")
    read = read_case(STUDIES[request.param], data, folder, roots=roots([KINDS]))
    results: list[Result] = []
    out = folder / "out"
    out.mkdir()
    with tolerant():
        for encoder in encoders(KINDS):
            results.extend(encoder.encode(read, out, results))  # the gate has passed each
    return Made(request.param, read, results, out)


def test_each_kind_is_made_where_it_can_be(made: Made) -> None:
    wanted = KINDS if made.name in IN_SPACE else NOWHERE
    assert {r.kind for r in made.results} == set(wanted)


def test_dciodvfy_finds_no_error_that_is_not_the_sources(made: Made) -> None:
    from overread.encode import gate_validator

    tool("dciodvfy")
    with tolerant():
        for result in made.results:
            gate_validator.check(made.folder / result.path)


def test_the_root_lists_everything_else(made: Made) -> None:
    with tolerant():
        report = dcmread(made.of("sr-data")[0])
    (catalog,) = [c for c in report.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "121181"]
    listed = {str(c.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for c in catalog.ContentSequence}
    assert listed == {r.sop_instance_uid for r in made.results if not r.kind.startswith("sr")}


def test_dcmtk_reads_the_reports(made: Made) -> None:
    for kind in ("sr-viewer", "sr-data", "sr"):
        (path,) = made.of(kind)
        for name in ("dsrdump", "dsr2html"):
            done = subprocess.run([tool(name), str(path)], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
            assert b"Bright part 1" in done.stdout


def test_dcmqi_gets_the_mask_back(made: Made, tmp_path: Path) -> None:
    reader = program("segimage2itkimage")
    for path in made.of("seg"):
        command = [reader, "--inputDICOM", str(inflated(path)), "--outputDirectory", str(tmp_path), "-t", "nrrd"]
        done = subprocess.run([*command, "--mergeSegments"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found, told = read_nrrd(next(tmp_path.glob("*.nrrd")))
        assert np.array_equal(placed(found, told, made.read), made.read.findings.mask)


def placed(found: NDArray[np.int16], told: dict[str, str], read: Read) -> NDArray[np.uint8]:
    """An image of another tool's, on its own part of the grid and in its own directions, in ours."""
    inverse = np.linalg.inv(read.volume.affine)
    steps = np.array([numbers(v) for v in told["space directions"].split(" ")])[::-1] @ inverse[:3, :3].T
    first = inverse @ np.array([*numbers(told["space origin"]), 1.0])
    where = np.argwhere(found)
    index = np.rint(where @ steps + first[:3]).astype(int)
    whole = np.zeros(read.volume.voxels.shape, np.uint8)
    whole[tuple(index.T)] = found[tuple(where.T)]
    return whole


def numbers(text: str) -> list[float]:
    return [float(v) for v in text.strip("()").split(",")]


@pytest.mark.parametrize("kind", ["sr-data", "sr"])
def test_dcmqi_gets_the_numbers_back(made: Made, tmp_path: Path, kind: str) -> None:
    reader, out = program("tid1500reader"), tmp_path / "out.json"
    command = [reader, "--inputDICOM", str(made.of(kind)[0]), "--outputMetadata", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    groups = {g["TrackingUniqueIdentifier"]: g for g in json.loads(out.read_text())["Measurements"]}
    titles = {g["TrackingIdentifier"]: g for g in groups.values() if "measurementItems" in g}
    for segment in made.read.findings.segments:
        held = [g for g in groups.values() if g["TrackingIdentifier"] == segment.title and len(numbers_of(g)) > 1]
        assert any(same(numbers_of(g), [m.value for m in segment.measurements]) for g in held), segment.title
    assert titles


def numbers_of(group: dict[str, list[dict[str, str]]]) -> list[float]:
    return [float(item["value"]) for item in group.get("measurementItems", [])]


def same(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and all(
        math.isclose(a, b, rel_tol=1e-10, abs_tol=1e-12) for a, b in zip(found, wanted, strict=True)
    )
