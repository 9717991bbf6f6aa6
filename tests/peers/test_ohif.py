"""OHIF, over Orthanc's DICOMweb, in a real browser shows segmentation, report and pictures where they belong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ohif_page import CHROMIUM, FLAGS, SIZE, Decoded, Viewer
from ohif_server import ROOT, Origin, dist
from ohif_study import LABELS, SPACING_MM, ViewedStudy, make, mirrored, slice_reversed
from orthanc import Archive

SHOTS = ROOT / "test-output" / "ohif"
NEAR = 40  # of 255, in each colour: what is drawn half transparent over grey
BLACK = 12.0


@dataclass(frozen=True)
class Reader:
    """A browser before an archive with a right study, and with two whose segmentation is wrong."""

    context: Any
    url: str
    right: ViewedStudy
    mirrored: ViewedStudy
    reversed: ViewedStudy

    def viewer(self) -> Viewer:
        return Viewer(self.context, self.url, SHOTS)


def lacking(what: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    files = dist()
    if files is None:
        lacking("OHIF is not there; make peers fetches it where npm is")
        return
    if not Path(CHROMIUM).exists() or shutil.which("Orthanc", path="/usr/sbin:/usr/bin") is None:
        lacking("Chromium or Orthanc is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path_factory.mktemp("ohif")
    studies = [make(folder / str(n), n, spoil) for n, spoil in enumerate((None, mirrored, slice_reversed), 71)]
    with Archive(folder, {}) as archive, Origin(files, archive.http) as origin, playwright.sync_playwright() as p:
        for study in studies:
            for path in study.files:
                assert archive.web.post("/instances", content=path.read_bytes()).status_code == 200, path.name
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield Reader(browser.new_context(viewport=SIZE), origin.url, *studies)
        finally:
            browser.close()


def require_voxels(found: Decoded, study: ViewedStudy) -> None:
    """Every voxel of every segment, on its slice, at its place."""
    assert found.names == {label.value: label.name for label in LABELS}, "the names of the segments"
    for value in found.names:
        total = sum(held.get(value, [0])[0] for held in found.slices.values())
        assert total == int((study.mask == value).sum()), "how many voxels a segment has"
    for k, uid in enumerate(study.images):
        held = found.slices.get(uid, {})
        assert {v: box[0] for v, box in held.items()} == counts(study.mask[k]), f"the voxels on slice {k + 1}"
        for value, box in held.items():
            rows, columns = np.nonzero(study.mask[k] == value)
            assert box[1:] == [columns.min(), rows.min(), columns.max(), rows.max()], f"the place on slice {k + 1}"


def counts(plane: NDArray[np.uint8]) -> dict[int, int]:
    return {int(v): int(n) for v, n in zip(*np.unique(plane, return_counts=True), strict=True) if v}


def at(k: int, row: float, column: float) -> tuple[float, float, float]:
    """The middle of a pixel in patient space."""
    return column * SPACING_MM[2] - 80.0, row * SPACING_MM[1] - 64.0, k * SPACING_MM[0]


def coloured(picture: NDArray[np.uint8], where: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    """Whether the overlay's colour prevails there, as much as ``colour`` has one that does."""
    column, row = where
    spot = picture[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3).mean(axis=0)
    return int(np.argmax(colour)) == int(np.argmax(spot)) and float(np.ptp(spot)) > NEAR


def not_black(picture: NDArray[np.uint8]) -> bool:
    """The viewport, which is right of the study list."""
    return float(picture[100:850, 300:1320].mean()) > BLACK


def test_a_segmentation_is_shown_voxel_for_voxel_in_its_colours(reader: Reader) -> None:
    study, viewer = reader.right, reader.viewer()
    viewer.open(study.uid, study.series["seg"])
    require_voxels(viewer.load_segmentation(), study)
    shown = study.images.index(viewer.jump_to("Nodule"))
    assert 14 <= shown < 18, "a click on a segment leads to one of its slices"
    picture = viewer.shot("segmentation")
    assert not_black(picture)
    nodule, lung, opposite = viewer.on_screen(at(shown, 71, 117), at(shown, 30, 100), at(shown, 71, 42))
    assert coloured(picture, nodule, LABELS[1].color)
    assert coloured(picture, lung, LABELS[0].color)
    assert not coloured(picture, opposite, LABELS[0].color)
    assert viewer.errors == []
    viewer.close()


def test_a_report_is_outlined_on_its_key_slice_with_its_numbers(reader: Reader) -> None:
    study, viewer = reader.right, reader.viewer()
    viewer.open(study.uid, study.series["sr-viewer"])
    viewer.wait_for_report()
    shown = study.images.index(viewer.shown())
    told = " ".join(viewer.texts())
    picture = viewer.shot("report")
    assert not_black(picture)
    lung = study.mask == 1
    assert shown == int(lung.sum(axis=(1, 2)).argmax())
    assert f"{lung.sum() * np.prod(SPACING_MM) / 1000:.2f} ml" in told
    rows, columns = np.nonzero(lung[shown])
    low, high = viewer.on_screen(
        at(shown, rows.min() - 0.5, columns.min() - 0.5), at(shown, rows.max() + 0.5, columns.max() + 0.5)
    )
    green = (picture[..., 1] > 200) & (picture[..., 0] < 120) & (picture[..., 2] < 120)
    for column in (low[0], high[0]):
        assert green[low[1] : high[1], column - 2 : column + 3].any(axis=1).mean() > 0.3, "an upright side, dashed"
    for row in (low[1], high[1]):
        assert green[row - 2 : row + 3, low[0] : high[0]].any(axis=0).mean() > 0.3, "a level side, dashed"
    assert not green[low[1] + 8 : high[1] - 8, low[0] + 8 : high[0] - 8].any()
    viewer.close()


def test_secondary_captures_are_shown(reader: Reader) -> None:
    study, viewer = reader.right, reader.viewer()
    viewer.open(study.uid, study.series["sc"])
    for _ in range(100):
        picture = viewer.shot("captures")
        if not_black(picture) and picture[100:850, 540:1060].mean() > 200:
            break
    assert picture[100:850, 540:1060].mean() > 200, "a white page"
    viewer.close()


@pytest.mark.parametrize(("wrong", "reason"), [("mirrored", "the place on"), ("reversed", "the voxels on")])
def test_a_segmentation_in_a_wrong_place_is_noticed(reader: Reader, wrong: str, reason: str) -> None:
    study, viewer = getattr(reader, wrong), reader.viewer()
    viewer.open(study.uid, study.series["seg"])
    found = viewer.load_segmentation()
    viewer.shot(wrong)
    with pytest.raises(AssertionError, match=reason):
        require_voxels(found, study)
    viewer.close()
