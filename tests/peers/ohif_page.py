"""OHIF in a headless Chromium: what it has decoded, which slice it shows, and what is on the screen."""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SIZE = {"width": 1400, "height": 900}
LONGEST_S = 60.0

# For each segmentation: its segments, and for each source image what its label map holds: number → [count, left, top,
# right, bottom].
_DECODED = """() => window.services.segmentationService.getSegmentations().map(s => {
  const map = s.representationData.Labelmap, slices = {};
  (map.imageIds || []).forEach((id, n) => {
    const image = window.cornerstone.cache.getImage(id), found = {};
    if (!image) return;
    const data = image.voxelManager.getScalarData(), width = image.columns || image.width;
    for (let p = 0; p < data.length; p++) if (data[p]) {
      const x = p % width, y = Math.floor(p / width);
      const f = found[data[p]] || (found[data[p]] = [0, x, y, x, y]);
      f[0]++; f[1] = Math.min(f[1], x); f[2] = Math.min(f[2], y); f[3] = Math.max(f[3], x); f[4] = Math.max(f[4], y);
    }
    if (Object.keys(found).length) slices[image.referencedImageId || map.referencedImageIds[n]] = found;
  });
  return { segments: Object.values(s.segments).map(g => [g.segmentIndex, g.label]), slices };
})"""
_SHOWN = """() => {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  return viewport ? viewport.getCurrentImageId() : "";
}"""
_ON_SCREEN = """points => {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const box = viewport.canvas.getBoundingClientRect();
  return points.map(p => viewport.worldToCanvas(p)).map(c => [c[0] + box.left, c[1] + box.top]);
}"""

Slices = dict[str, dict[int, list[int]]]


@dataclass(frozen=True)
class Decoded:
    """A segmentation as the viewer has it: names by number; by SOP Instance UID what its label map holds on a slice,
    number → [count, left, top, right, bottom]."""

    names: dict[int, str]
    slices: Slices


class Viewer:
    """One page; ``shots`` is where pictures of it are kept."""

    def __init__(self, context: Any, origin: str, shots: Path) -> None:
        self._page, self._origin, self._shots = context.new_page(), origin, shots
        self.errors: list[str] = []
        self._page.on("pageerror", lambda error: self.errors.append(str(error)))
        self._page.add_init_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
        shots.mkdir(parents=True, exist_ok=True)

    def open(self, study: str, series: str) -> None:
        """The study with one of its series in the viewport."""
        self._page.goto(f"{self._origin}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")

    def load_segmentation(self) -> Decoded:
        """Say yes when it is asked whether to load it, and wait until it is decoded."""
        self._page.get_by_text("Do you want to open this Segmentation?").wait_for(timeout=LONGEST_S * 1000)
        self._page.get_by_role("button", name="Yes").click()
        found = self._until(lambda: self._page.evaluate(_DECODED), lambda f: f and f[0]["slices"])[0]
        slices = {_uid(image): {int(n): v for n, v in held.items()} for image, held in found["slices"].items()}
        return Decoded({int(n): label for n, label in found["segments"]}, slices)

    def jump_to(self, segment: str) -> str:
        """Click on a segment in the list; the SOP Instance UID of the slice that is shown then."""
        before = self.shown()
        row = self._page.get_by_text(segment, exact=True).first
        if not row.is_visible():
            self._page.click("[data-cy=panelSegmentation-btn]")
        row.wait_for(timeout=LONGEST_S * 1000)
        for _ in range(10):  # a click before the list is ready does nothing
            row.click()
            self._page.wait_for_timeout(500)
            if self.shown() != before:
                break
        self._page.mouse.move(700, 20)  # what a segment says of itself lies over the picture
        self._page.wait_for_timeout(1000)
        return self.shown()

    def wait_for_report(self) -> None:
        """Until a report is shown."""
        self._page.get_by_text("Do you want to continue tracking measurements").wait_for(timeout=LONGEST_S * 1000)
        self._until(self.texts, lambda texts: any(":" in text for text in texts))

    def texts(self) -> list[str]:
        """What is written into the viewport, beside what is drawn."""
        return [str(text) for text in self._page.locator("svg text").all_text_contents() if text]

    def shown(self) -> str:
        """SOP Instance UID of the slice in the viewport."""
        return _uid(str(self._until(lambda: self._page.evaluate(_SHOWN), bool)))

    def on_screen(self, *points: tuple[float, float, float]) -> list[tuple[int, int]]:
        """Where points of patient space, mm, LPS, are in a screenshot: (column, row)."""
        return [(round(x), round(y)) for x, y in self._page.evaluate(_ON_SCREEN, [list(p) for p in points])]

    def shot(self, name: str) -> NDArray[np.uint8]:
        """A picture of the viewport's part of the page, at its place in the whole, (rows, columns, 3); kept as
        ``name``.png."""
        data = self._page.screenshot()
        (self._shots / f"{name}.png").write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def close(self) -> None:
        """The page."""
        self._page.close()

    def _until(self, ask: Any, enough: Any) -> Any:
        end = time.monotonic() + LONGEST_S
        while not enough(found := ask()):
            if time.monotonic() > end:
                raise AssertionError("the viewer did not show it in time")
            self._page.wait_for_timeout(200)
        return found


def _uid(image: str) -> str:
    found = re.search(r"/instances/([0-9.]+)", image)
    return found.group(1) if found else image
