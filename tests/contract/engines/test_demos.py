"""Each kind of pipeline in one card, from the stored instances to the DICOM objects that leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import demos
import numpy as np
import pydicom
import pytest
import tiny

from overread.domain.card import Card
from overread.domain.findings import Findings
from overread.domain.volume import Volume
from overread.encode import encoders
from overread.infer.engines import Grid, engine
from overread.infer.pool import WorkerPool
from overread.load.series import load
from overread.measure.findings import find
from overread.ports import Read
from overread.simulate.phantom import ChestPhantom, chest_phantom
from overread.simulate.phantom import Grid as PhantomGrid
from overread.simulate.study import write_study
from overread.spool import Spool
from overread.spool.header import read_file

# Torch, MONAI and scikit-learn warn of their own deprecations while they load and save.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def phantom() -> ChestPhantom:
    return chest_phantom(5, PhantomGrid((24, 44, 36), (6.0, 7.0, 8.0)), nodules=1, noise_hu=5.0)


@pytest.fixture(scope="module")
def volume(phantom: ChestPhantom, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """As the service loads it: the stored files of one series."""
    folder = tmp_path_factory.mktemp("pipelines")
    spool = Spool(folder / "spool", durable=False)
    instances = []
    for k, path in enumerate(write_study(phantom, folder / "study", seed=5)):
        shutil.copy(path, spool.root / "instances" / f"{k}.dcm")
        instances.append(replace(read_file(path), path=f"instances/{k}.dcm"))
    return load(spool, instances)


def through(card: Card, volumes: Sequence[Volume], out: Path) -> tuple[Findings, list[pydicom.Dataset]]:
    """Infer, measure, encode: what was found, and the objects as they were written after the gate had passed them."""
    grids = [Grid(v.voxels, v.affine, v.paths) for v in volumes]
    reading = engine(card.engine)(card, "cpu").read(grids, lambda _: None)
    findings = find(reading, volumes[0], card)
    read = Read("key", "2026-11-21T08:09:10+00:00", card, volumes[0], findings)
    made = []
    for encoder in encoders(["seg", "sr"]):
        made.extend(encoder.encode(read, out, made))
    return findings, [pydicom.dcmread(out / result.path) for result in made]


def names(report: pydicom.Dataset) -> set[str]:
    """The meanings of all numbers in a report."""
    found: set[str] = set()
    for item in report.get("ContentSequence", []):
        if item.ValueType == "NUM":
            found.add(str(item.ConceptNameCodeSequence[0].CodeMeaning))
        found |= names(item)
    return found


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_filters_then_a_model_then_measurements(volume: Volume, tmp_path: Path) -> None:
    pytest.importorskip("mirp", reason="MIRP is not installed (pip install 'overread[radiomics]')")
    findings, (segmentation, report) = through(demos.filtered(tmp_path), [volume], tmp_path)
    assert len(findings.segments) == 1
    wanted = volume.voxels > 150
    assert 0.3 < dice(findings.mask > 0, wanted) <= 1
    # In its place: no further off than a voxel is large.
    away = [np.argwhere(m).mean(0) for m in (findings.mask > 0, wanted & (findings.mask > 0))]
    assert np.abs(away[0] - away[1]).max() < 1
    assert segmentation.Modality == "SEG"
    assert {"Volume", "Long Axis", "Skewness", "Sphericity", "Joint Entropy of GLCM"} <= names(report)
    assert "Maximum 3D Diameter of a Mesh" in names(report)


def test_a_second_model_within_the_first_ones_region(volume: Volume, tmp_path: Path) -> None:
    card = demos.two_stages(tmp_path)
    both = find(engine("stages")(card, "cpu").read([Grid(volume.voxels, volume.affine)], lambda _: None), volume, card)
    body, bone = (both.layer_of(s.value) == s.value for s in both.segments)
    assert (body == (volume.voxels > -400)).all()
    assert (bone == ((volume.voxels > 150) & body)).all()
    alone = demos.reread(tmp_path, 'name = "body"', 'name = "body"\nkeep = false')
    findings, (segmentation, _) = through(alone, [volume], tmp_path)
    assert (findings.mask.astype(bool) == bone).all()
    assert [str(s.SegmentLabel) for s in segmentation.SegmentSequence] == ["Brighter"]


def test_a_classifier_judges_the_measured_features_of_each_region(volume: Volume, tmp_path: Path) -> None:
    for module in ("sklearn", "skops", "mirp"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install 'overread[sklearn,radiomics]')")
    findings, _ = through(demos.classified(tmp_path), [volume], tmp_path)
    called = {segment.label.name for segment in findings.segments}
    assert called and called <= {"Brighter", "Third"}  # the regions themselves are not kept
    masks = (findings.layer_of(s.value) == s.value for s in findings.segments)
    together = sum(masks, np.zeros(volume.voxels.shape))
    assert (together.astype(bool) == (volume.voxels > 150)).all()


def test_a_film_goes_through_a_recurrent_network(tmp_path: Path) -> None:
    # By hand: a film has no place in patient space, so that there is nothing to load from slices.
    film = demos.film()
    card = demos.recurrent(tmp_path)
    reading = engine(card.engine)(card, "cpu").read([Grid(film, np.eye(4))], lambda _: None)
    assert reading.label_map is not None and reading.label_map.shape == film.shape
    lit = [bool(frame.any()) for frame in reading.label_map]
    # Half is reached with the first bright frame, more than half with the second.
    assert lit == [False] * 4 + [True] * 4
    assert (reading.label_map[5].astype(bool) == (film[5] > 0)).all()


def test_two_series_are_channels_of_one_network(volume: Volume, tmp_path: Path) -> None:
    hot = np.zeros(volume.voxels.shape, np.float32)
    hot[4:8, 10:20, 6:12] = 30000.0
    pet = replace(volume, voxels=hot)
    findings, (segmentation, _) = through(demos.multi_series(tmp_path), [volume, pet], tmp_path)
    assert (findings.mask.astype(bool) == (hot > 0)).all()
    assert segmentation.FrameOfReferenceUID == pydicom.dcmread(volume.paths[0]).FrameOfReferenceUID


@pytest.mark.parametrize("make", [tiny.external, demos.two_stages], ids=["external", "stages"])
def test_a_worker_process_reads_what_the_engine_reads(
    make: Callable[[Path], Card], volume: Volume, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = make(tmp_path)
    told: list[float] = []
    pool = WorkerPool(lambda _: None, threads=1)
    try:
        with caplog.at_level("INFO", "overread"):
            reading = pool.read(card, [volume], told.append)
    finally:
        pool.close()
    alone = engine(card.engine)(card, "cpu").read([Grid(volume.voxels, volume.affine, volume.paths)], lambda _: None)
    assert np.array_equal(reading.label_map, alone.label_map) and set(reading.masks) == set(alone.masks)
    assert all((reading.masks[value] == mask).all() for value, mask in alone.masks.items())
    assert told[-1] == 1.0
    assert ("network" in caplog.text) == (card.engine == "external")  # which limits applied is in the log


def test_a_programs_dicom_segmentation_becomes_a_finding_of_ours(volume: Volume, tmp_path: Path) -> None:
    findings, (segmentation, _) = through(demos.program(tmp_path), [volume], tmp_path)
    assert (findings.mask.astype(bool) == (volume.voxels > 150)).all()
    assert str(segmentation.SegmentSequence[0].SegmentLabel) == "Bright"
    assert str(segmentation.Manufacturer) == "overread"
