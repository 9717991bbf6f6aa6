"""How good is models/ct_chest? Dice, nodules by size and calibration on unseen phantoms; real chest CT against rules.

    python tests/bench/ct_chest.py --phantoms 12 --study FOLDER_OF_DICOM --picture overlay.png

Phantom figures are against exact truth: once as generated, once as other scanners would show the same patients
(kernels, thick slices, metal, low dose, breathing, a narrow field of view: models/ct_chest/scripts/vary.py).
The reference on real CT is no truth: lungs are what is darker than -400 HU inside the body, larger than 200 ml, with
vessels closed, split near the middle where they are narrowest; bone is what
is brighter than 150 HU inside the body after a blur of 1.1 mm (lung kernels are noisy). That rule calls contrast-filled
hearts and vessels bone, so bone is compared a second time outside the lungs' convex hull.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ct_chest_parts.calibration import Calibration, Network
from ct_chest_parts.unseen import MODEL, Score, overlap, phantoms, varied
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.morphology import convex_hull_image

from overread.domain.card import Card, read_card
from overread.domain.study import Instance, group
from overread.domain.volume import Volume
from overread.infer.pool import WorkerPool
from overread.load.series import load
from overread.route.router import route
from overread.simulate.bench import dicom_files
from overread.simulate.phantom import ChestPhantom, Grid
from overread.simulate.study import write_study
from overread.spool import Spool
from overread.spool.header import read_file

GRID = Grid((110, 220, 220), (2.5, 1.7, 1.7))
OWN_GRID = Grid((140, 150, 200), (2.0, 2.0, 2.0))
BLUR_MM = 1.1
Mask = NDArray[np.bool_]
Rows = dict[str, dict[str, str]]


def main() -> None:
    """Print the tables; with --json the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--phantoms", type=int, default=12)
    parser.add_argument("--study", type=Path, action="append", default=[])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    card = read_card(options.model)
    pool = WorkerPool(lambda _event: None)
    rows: Rows = _phantoms(pool, card, options.phantoms) if options.phantoms else {}
    for study in options.study:
        rows[study.name] = _real(pool, card, study, options.picture)
    pool.close()
    sure = _calibration(options.model, options.phantoms) if options.phantoms else {}
    _print(rows, sure, as_json=options.json)


def _label_map(pool: WorkerPool, card: Card, volume: Volume) -> NDArray[np.integer[Any]]:
    seen = pool.read(card, [volume], lambda _f: None).label_map
    assert seen is not None
    return seen


def _phantoms(pool: WorkerPool, card: Card, count: int) -> Rows:
    plain, other = Score(), Score()
    for seed, phantom in phantoms(count, GRID):
        for score, shown in ((plain, phantom), (other, varied(phantom, seed))):
            score.add(read(pool, card, shown, seed), phantom.truth, float(np.prod(phantom.grid.spacing_mm)))
    return {f"{count} unseen phantoms": plain.row(), f"the {count} on other scanners": other.row()}


def read(pool: WorkerPool, card: Card, phantom: ChestPhantom, seed: int) -> NDArray[np.integer[Any]]:
    """The label map of a phantom that went through DICOM files, as a study does."""
    with tempfile.TemporaryDirectory() as folder:
        return _label_map(pool, card, _volume(write_study(phantom, Path(folder), seed=seed), card))


def _calibration(model: Path, count: int) -> Rows:
    sure, network = Calibration(), Network(model)
    for seed, phantom in phantoms(count, OWN_GRID):
        sure.add(network.probabilities(varied(phantom, seed)), phantom.truth)
    return dict(sure.rows())


def _real(pool: WorkerPool, card: Card, study: Path, picture: Path | None) -> dict[str, str]:
    volume = _volume(dicom_files(study), card)
    mask = _label_map(pool, card, volume)
    reference = rules(volume)
    both = (mask == 1) | (mask == 2)
    lungs = reference["left lung"] | reference["right lung"]
    said = {"lungs": f"{overlap(both, lungs):.3f}"}
    for value, name in ((1, "left lung"), (2, "right lung"), (3, "bone")):
        said[name] = f"{overlap(mask == value, reference[name]):.3f}"
    outside = ~np.stack([convex_hull_image(plane) if plane.any() else plane for plane in lungs])
    said["bone outside the hull"] = f"{overlap((mask == 3) & outside, reference['bone'] & outside):.3f}"
    if picture is not None:
        _picture(volume, mask, picture)
    return said


def rules(volume: Volume) -> dict[str, Mask]:
    """Left lung, right lung and bone by thresholds and connected components; (slices, rows, columns) bool each."""
    hu = volume.voxels
    body = _largest(ndimage.binary_opening(hu > -300, iterations=2))
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    air = (hu < -400) & body
    parts, count = ndimage.label(ndimage.binary_erosion(air, iterations=1))
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1)) * volume.voxel_ml
    seeds = np.isin(parts, 1 + np.flatnonzero(sizes > 200.0))
    lungs = ndimage.binary_dilation(seeds, iterations=1) & air
    lungs = ndimage.binary_closing(np.pad(lungs, 6), iterations=4)[6:-6, 6:-6, 6:-6] & body
    left = _left_of_midline(lungs, volume)
    blur = [BLUR_MM / step for step in volume.stack.spacing_mm]
    bone = (ndimage.gaussian_filter(hu.astype(np.float32), blur) > 150) & body
    return {"left lung": lungs & left, "right lung": lungs & ~left, "bone": bone}


def _left_of_midline(lungs: Mask, volume: Volume) -> Mask:
    # The patient's left is +x; each slice is split where the fewest lung pixels stand in a column near the middle.
    x = volume.affine[0, 2] * np.arange(lungs.shape[2])
    side = np.zeros(lungs.shape, bool)
    middle = lungs.any(axis=(0, 1))
    columns = np.flatnonzero(middle)
    low, high = (columns[0] + (columns[-1] - columns[0]) * np.array([0.35, 0.65])).astype(int)
    for plane, out in zip(lungs, side, strict=True):
        split = low + int(plane[:, low:high].sum(axis=0).argmin())
        out[:, (np.arange(lungs.shape[2]) > split) == (x[-1] > x[0])] = True
    return side


def _largest(mask: Mask) -> Mask:
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _volume(files: list[Path], card: Card) -> Volume:
    instances: list[Instance] = [replace(read_file(p), path=str(p)) for p in files]
    _, plans = route(group("study", 1, instances), [card])
    chosen = [i for i in instances if i.series_uid == plans[0].series_uid]
    return load(_AsTheyLie(), chosen)


class _AsTheyLie(Spool):
    """Files where they are, not in a spool."""

    def __init__(self) -> None:
        self.root = Path("/")


def _picture(volume: Volume, mask: NDArray[np.uint8], path: Path) -> None:
    colors = np.array([[0, 0, 0], [72, 133, 237], [60, 186, 84], [244, 194, 13], [219, 50, 54]])
    tiles = []
    for k in np.linspace(2, len(mask) - 3, 8).astype(int):
        grey = np.clip((volume.voxels[k, ::2, ::2].astype(float) + 1000) / 1400, 0, 1)[..., None] * np.full(3, 255.0)
        labels, painted = mask[k, ::2, ::2], grey.copy()
        painted[labels > 0] = painted[labels > 0] * 0.55 + colors[labels[labels > 0]] * 0.45
        tiles.append(np.concatenate([grey, painted]))
    rows = [np.concatenate(tiles[n : n + 4], 1) for n in (0, 4)]
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(path)


def _print(rows: Rows, sure: Rows, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"quality": rows, "calibration": sure}, indent=2))
        return
    for title, table in (("on", rows), ("true where probability is at least", sure)):
        if table:
            print(*_table(title, table), "", sep="\n")


def _table(title: str, rows: Rows) -> Iterator[str]:
    heads = list(dict.fromkeys(k for row in rows.values() for k in row))
    yield f"| {title} | " + " | ".join(heads) + " |"
    yield "|---" * (len(heads) + 1) + "|"
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(row.get(h, "") for h in heads) + " |"


if __name__ == "__main__":
    main()
