"""A foreign program gets copies and nothing else, keeps within its limits, and what it wrote is checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from overread.domain.card import Card, read_card
from overread.domain.errors import CardError
from overread.infer import confine
from overread.infer.confine import ProgramFailed
from overread.infer.engines import LPS_TO_RAS, Grid
from overread.infer.external import Program
from overread.infer.returned import collect
from overread.simulate.phantom import ChestPhantom
from overread.simulate.study import affine_of

CARD = """
name = "foreign"
version = "1"
title = "Foreign"
manufacturer = "overread"
engine = "external"
[accepts]
modality = "CT"
[runtime]
timeout_s = {timeout}
[[labels]]
value = 1
name = "Bright"
type = ["39607008", "SCT", "Lung"]
[external]
command = {command}
{limits}
"""


@pytest.fixture
def source(tiny_phantom: ChestPhantom, tiny_ct: list[Path]) -> Grid:
    return Grid(tiny_phantom.hu, affine_of(tiny_phantom), tuple(map(str, tiny_ct[1:])))


Make = Callable[..., Card]


@pytest.fixture
def program(tmp_path: Path) -> Make:
    """``program(code, limits)``: a card whose program is this Python; the network is allowed unless said otherwise."""

    def make(code: str, limits: str = "network = true", timeout: float = 30.0) -> Card:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "program.py").write_text("import os, sys\nfrom pathlib import Path\n" + code)
        command = json.dumps([sys.executable, "{model}/program.py", "{input}", "{output}", "{nifti}"])
        (folder / "card.toml").write_text(CARD.format(command=command, limits=limits, timeout=timeout))
        return read_card(folder)

    return make


def run(card: Card, source: Grid) -> Any:
    return Program(card, "cpu").read([source], lambda _: None)


def write_nifti(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """``mask`` (slices, rows, columns), ``affine`` index → mm, LPS."""
    turned = np.ascontiguousarray(mask.astype(np.uint8).transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(turned, LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]), path)


COPY_OF_NIFTI = """
import nibabel, numpy
image = nibabel.load(Path(sys.argv[3]) / "01.nii")
mask = (numpy.asarray(image.dataobj) > 50).astype("uint8")
nibabel.save(nibabel.Nifti1Image(mask, image.affine), Path(sys.argv[2]) / "mask.nii.gz")
"""


def test_a_program_may_read_nifti_instead(program: Make, source: Grid) -> None:
    reading = run(program(COPY_OF_NIFTI), source)
    assert (reading.label_map.astype(bool) == (source.voxels > 50)).all()
    assert any("network" in note for note in reading.notes)


def test_a_program_gets_copies_and_an_environment_of_its_own(
    program: Make, source: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the service")
    before = [Path(path).read_bytes() for path in source.paths]
    spy = f"""
given = sorted(Path(sys.argv[1]).iterdir())
for path in given:
    path.write_bytes(b"spoiled")
Path({str(tmp_path / "seen.txt")!r}).write_text(repr(([p.name for p in given], dict(os.environ), os.getcwd())))
sys.exit(3)
"""
    with pytest.raises(ProgramFailed, match="exit code 3"):
        run(program(spy), source)
    names, environment, here = eval((tmp_path / "seen.txt").read_text())
    assert names == [f"{n:06d}.dcm" for n in range(1, len(source.paths) + 1)]
    assert "SECRET" not in environment and environment["CUDA_VISIBLE_DEVICES"] == ""
    assert [Path(path).read_bytes() for path in source.paths] == before
    assert not Path(here).exists()


def test_a_failure_says_what_the_program_said_last_without_the_patient(program: Make, source: Grid) -> None:
    code = """
import pydicom
d = pydicom.dcmread(next(Path(sys.argv[1]).iterdir()))
print("cannot read", d.PatientName, d.PatientID, d.StudyInstanceUID, "of phantom", 20260105, file=sys.stderr)
sys.exit(2)
"""
    header = pydicom.dcmread(source.paths[0])
    with pytest.raises(ProgramFailed) as failed:
        run(program(code), source)
    said = str(failed.value)
    assert said.startswith("the program ended with exit code 2; it said last: cannot read")
    for private in (*str(header.PatientName).split("^"), str(header.PatientID), str(header.StudyInstanceUID)):
        assert private.casefold() not in said.casefold()
    assert "20260105" not in said


def _needs_namespaces() -> None:
    try:
        confine._namespaces(False)
    except CardError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_a_program_without_network_reaches_not_even_this_machine(program: Make, source: Grid) -> None:
    _needs_namespaces()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 2)
except OSError as error:
    sys.exit("no way: " + type(error).__name__)
"""
        with pytest.raises(ProgramFailed, match="no way"):
            run(program(code, "network = false"), source)
        with pytest.raises(CardError, match="neither a NIfTI label map nor a DICOM SEG"):
            run(program(code, "network = true"), source)


def test_without_a_way_to_shut_the_network_out_nothing_is_run(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_works", lambda _: False)
    with pytest.raises(CardError, match="network = true"):
        Program(program("", "network = false"), "cpu")
    notes = Program(program("", "network = true"), "cpu")._confined.notes
    assert "process group only" in notes[0]


@pytest.mark.parametrize("contained", [True, False])
def test_a_program_that_takes_too_long_is_ended_with_all_it_started(
    program: Make, source: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contained: bool
) -> None:
    if not contained:
        monkeypatch.setattr(confine, "_works", lambda _: False)
    mark = tmp_path / "alive"
    code = f"""
import subprocess, time
loop = "import time, pathlib\\nwhile True: pathlib.Path({str(mark)!r}).write_text(str(time.time())); time.sleep(0.02)"
subprocess.Popen([sys.executable, "-c", loop], start_new_session=True)
time.sleep(60)
"""
    began = time.monotonic()
    with pytest.raises(ProgramFailed, match=r"did not end within 1\.6 s"):
        run(program(code, timeout=2.0), source)
    assert time.monotonic() - began < 10
    last = mark.read_text()
    time.sleep(0.2)
    assert mark.read_text() == last


def test_a_program_that_takes_too_much_memory_is_ended(program: Make, source: Grid) -> None:
    children = """
import subprocess, time
hold = "b = bytearray(150_000_000); import time; time.sleep(30)"
[subprocess.Popen([sys.executable, "-c", hold]) for _ in range(3)]
time.sleep(30)
"""
    with pytest.raises(ProgramFailed, match="more than its 300 MB of memory"):
        run(program(children, "network = true\nmemory_mb = 300"), source)
    with pytest.raises(ProgramFailed, match="MemoryError"):
        run(program("bytearray(900_000_000)", "network = true\nmemory_mb = 300"), source)


def test_a_program_that_takes_too_much_processor_time_is_ended(program: Make, source: Grid) -> None:
    with pytest.raises(ProgramFailed, match="was ended by SIGXCPU"):
        run(program("while True: pass", "network = true\ncpu_s = 1"), source)
    with pytest.raises(ProgramFailed, match="was ended by SIGKILL"):
        run(program("os.kill(os.getpid(), 9)"), source)


def test_a_program_dies_with_the_worker_that_runs_it(program: Make, source: Grid, tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("util-linux's setpriv is not installed")
    mark = tmp_path / "alive"
    code = f"import time\nwhile True: Path({str(mark)!r}).write_text(str(time.time())); time.sleep(0.02)"
    card = program(code)
    worker = f"""
from pathlib import Path
import numpy as np
from overread.domain.card import read_card
from overread.infer.engines import Grid
from overread.infer.external import Program
Program(read_card(Path({str(card.folder)!r})), "cpu").read(
    [Grid(np.zeros((2, 2, 2)), np.eye(4), {source.paths!r})], lambda _: None)
"""
    process = subprocess.Popen([sys.executable, "-c", worker])
    deadline = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    time.sleep(0.3)
    last = mark.read_text()
    time.sleep(0.2)
    assert mark.read_text() == last


def test_a_program_that_is_not_there_is_refused_when_its_card_is_loaded(program: Make) -> None:
    card = program("")
    gone = replace(card, external=replace(card.external, command=("no-such-program",)))
    with pytest.raises(CardError, match="'no-such-program' is not there"):
        Program(gone, "cpu")
    with pytest.raises(CardError, match="needs \\[external\\]"):
        Program(replace(card, external=replace(card.external, command=())), "cpu")


def test_a_nifti_mask_is_taken_however_its_axes_run(program: Make, source: Grid, tmp_path: Path) -> None:
    wanted = source.voxels > 50
    for n, (axes, flips) in enumerate((((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (1, -1, 1)))):
        folder = tmp_path / str(n)
        folder.mkdir()
        turned = wanted.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
        affine = np.eye(4)
        origin = np.array([0.0, 0.0, 0.0])
        for axis, flip in zip(axes, flips, strict=True):
            affine[:3, axes.index(axis)] = source.affine[:3, axis] * flip
            if flip < 0:
                origin[axis] = wanted.shape[axis] - 1
        affine[:3, 3] = (source.affine @ [*origin, 1])[:3]
        write_nifti(folder / "mask.nii.gz", turned, affine)
        reading = collect(folder, program(""), source, ())
        assert reading.label_map is not None
        assert (reading.label_map.astype(bool) == wanted).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((3.0, 1.0, 0), "lies beside the source"),
        ((0.0, 1.01, 0), "other axes or spacings"),
        ((0.0, 1.0, 1), "the source \\(slices, rows, columns\\)"),
    ],
)
def test_a_nifti_mask_out_of_place_is_refused(
    program: Make, source: Grid, tmp_path: Path, wrong: tuple[float, float, int], said: str
) -> None:
    shift, scale, crop = wrong
    affine = source.affine.copy()
    affine[0, 3] += shift
    affine[:3, :3] *= scale
    write_nifti(tmp_path / "mask.nii", source.voxels[crop:] > 50, affine)
    with pytest.raises(CardError, match=said):
        collect(tmp_path, program(""), source, ())


def _seg(source: Grid, mask: np.ndarray, path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    by = AlgorithmIdentificationSequence("program", codes.DCM.ArtificialIntelligence, "1")
    described = SegmentDescription(1, "Bright", codes.SCT.Tissue, codes.SCT.Lung, "AUTOMATIC", by)
    slices = [pydicom.dcmread(p) for p in source.paths]
    made = Segmentation(
        slices, mask.astype(np.uint8), "BINARY", [described], "1.2.3.4", 1, "1.2.3.5", 1, "maker", "program", "1", "1"
    )
    change(made)
    made.save_as(path)


def _elsewhere(seg: pydicom.Dataset) -> None:
    frame = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    frame.ImagePositionPatient = [float(v) + 1.0 for v in frame.ImagePositionPatient]


def _another_space(seg: pydicom.Dataset) -> None:
    seg.FrameOfReferenceUID = "1.2.3.6"


def _renamed(seg: pydicom.Dataset) -> None:
    seg.SegmentSequence[0].SegmentLabel = "Tumour"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_elsewhere, "frame 1 of the program's segmentation does not lie on a source slice"),
        (_another_space, "another frame of reference"),
        (_renamed, "'Tumour' is no label of the card"),
    ],
)
def test_a_dicom_segmentation_out_of_place_is_refused(
    program: Make, source: Grid, tmp_path: Path, change: Callable[[pydicom.Dataset], None], said: str
) -> None:
    _seg(source, source.voxels > 50, tmp_path / "seg.dcm", change)
    with pytest.raises(CardError, match=said):
        collect(tmp_path, program(""), source, ())


def test_other_dicom_objects_are_left_out_and_said(program: Make, source: Grid, tmp_path: Path) -> None:
    shutil.copy(source.paths[0], tmp_path / "picture.dcm")
    with pytest.raises(CardError, match="only DICOM of modality CT"):
        collect(tmp_path, program(""), source, ())
    _seg(source, source.voxels > 50, tmp_path / "seg.dcm", lambda _: None)
    reading = collect(tmp_path, program(""), source, ("noted",))
    assert (reading.masks[1] == (source.voxels > 50)).all()
    assert reading.notes == ("noted", "left out what cannot be checked: CT")
