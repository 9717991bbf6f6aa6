"""Every series below a folder: as what it loads, or why it is refused; compared with SimpleITK where that reads it.

    python tests/bench/volumes.py ../shared/data > tests/bench/VOLUMES.md

Archives (.tar.xz) are unpacked into a temporary folder first. SimpleITK is asked file by file, so that nothing of how a
series is put together is shared: its pixels, and the place of each slice's first pixel in the patient.
"""

from __future__ import annotations

import logging
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from overread.domain.candidates import candidates
from overread.domain.card import Accepts
from overread.domain.errors import OverreadError, Refused
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.load.series import load
from overread.route.rules import not_an_image
from overread.spool import Spool
from overread.spool.frames import SpoolFrames
from overread.spool.header import read_file

PROJECTIONS = {"DX", "CR", "MG", "RF", "XA", "PX"}
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def series_below(folder: Path, unpacked: Path, only: str = "") -> Iterator[tuple[str, list[Instance]]]:
    """(where, instances) of each series in the files and archives below ``folder``, or below ``only`` in it."""
    for archive in sorted((folder / only).rglob("*.tar.xz")):
        if "fuzz" not in archive.name:
            with tarfile.open(archive) as packed:
                packed.extractall(unpacked / archive.parent.relative_to(folder), filter="data")
    found: dict[tuple[str, str], list[Instance]] = {}
    for root in (folder, unpacked):
        for path in sorted(p for p in (root / only).rglob("*") if p.is_file()):
            with suppress(Refused, OSError):
                instance = replace(read_file(path), path=str(path))
                found.setdefault((str(path.parent.relative_to(root)), instance.series_uid), []).append(instance)
    for (where, _), instances in sorted(found.items()):
        # Some sets hold one image in many encodings, under one SOP Instance UID: each is a series of its own.
        again = len({i.sop_instance_uid for i in instances}) < len(instances) or where.startswith("transfer-syntaxes")
        yield from ((f"{where}/{Path(i.path).name}", [i]) for i in instances) if again else [(where, instances)]


def kind_of(instances: Sequence[Instance]) -> str:
    """As what a series like this is meant to be read."""
    first = instances[0]
    single = first.number_of_frames == 1
    if first.modality in PROJECTIONS or (single and (first.modality == "US" or len(instances) == 1)):
        return "image"
    return "frames" if first.number_of_frames > 1 and first.modality in ("US", "XA", "NM", "RF") else "volume"


def volumes(spool: Spool, instances: Sequence[Instance]) -> Iterator[tuple[str, str, Volume | str]]:
    """(kind, which of them, volume or reason) of everything in one series."""
    reason = not_an_image(instances)
    if reason:
        yield "", "", reason
        return
    kind = kind_of(instances)
    images = [i for i in instances if not i.is_localizer]
    if not images:
        yield kind, "", "it is a localizer"
        return
    try:
        kind = "frames" if kind == "volume" and len(images) == 1 and _one_place(spool, images[0]) else kind
        found = candidates(images, kind, SpoolFrames(spool.absolute))
    except OverreadError as error:
        yield kind, "", str(error)
        return
    accepts = Accepts("", kind=kind)
    for candidate in found:
        try:
            stacked = candidate.stack(accepts)
            yield kind, candidate.title, load(spool, instances, accepts, digest=stacked.digest())
        except OverreadError as error:
            yield kind, candidate.title, str(error)


def _one_place(spool: Spool, instance: Instance) -> bool:
    positions = {frame.position for frame in SpoolFrames(spool.absolute).frames(instance)}
    return instance.number_of_frames > 1 and len(positions) == 1 and positions != {()}


def differences(volume: Volume) -> str:
    """How a volume differs from what SimpleITK reads of the same files; empty when it does not."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    cache: dict[str, tuple[np.ndarray, SimpleITK.Image]] = {}
    for k, (path, (_, number)) in enumerate(zip(volume.paths, volume.sources, strict=True)):
        if path not in cache:
            image = SimpleITK.ReadImage(path)
            cache = {path: (SimpleITK.GetArrayFromImage(image), image)}
        array, image = cache[path]
        plane = array[max(number - 1, 0)] if image.GetDimension() == 3 else array
        plane = _with_its_own_slope(volume, k, plane)
        told = _plane_differs(volume, k, plane) or _place_differs(volume, k, image)
        if told:
            return f"slice {k + 1}: {told}"
    return ""


def _with_its_own_slope(volume: Volume, k: int, plane: np.ndarray) -> np.ndarray:
    """SimpleITK gives all frames of a file the first one's slope and intercept; these are taken back."""
    rescales = [getattr(i, "rescale", None) for i in volume.stack.instances]
    if len(set(rescales)) == 1 and volume.sources[k][1]:
        number = 1
        shared = _rescale_of(volume, number)
        return plane if shared == (rescales[k] or shared) else _again(plane, shared, rescales[k])
    return plane if rescales[k] is None else _again(plane, _rescale_of(volume, 1), rescales[k])


def _rescale_of(volume: Volume, number: int) -> tuple[float, float]:
    instance = replace(read_file(Path(volume.paths[0])), path=volume.paths[0])
    frames = SpoolFrames(Path).frames(instance)
    return frames[number - 1].rescale or (1.0, 0.0)


def _again(plane: np.ndarray, given: tuple[float, float], own: tuple[float, float] | None) -> np.ndarray:
    slope, intercept = own or (1.0, 0.0)
    return (plane.astype(np.float64) - given[1]) / given[0] * slope + intercept


def _plane_differs(volume: Volume, k: int, plane: np.ndarray) -> str:
    first = volume.stack.instances[k]
    if plane.ndim == 3:
        plane = np.rint(plane[..., :3] @ LUMINANCE) if plane.shape[-1] >= 3 else plane[..., 0]
    plane = plane.astype(np.float64)
    if first.modality == "CT":
        plane = np.maximum(plane, -1024)
    ours = volume.voxels[k].astype(np.float64)
    if ours.shape != plane.shape:
        return f"{ours.shape} and {plane.shape} pixels"
    worst = float(np.abs(ours - plane).max())
    limit = max(1e-5 * float(np.abs(plane).max()), 1e-6)
    if worst > limit and volume.kind == "image" and np.ptp(ours + plane) < 1e-6:
        return ""  # MONOCHROME1: theirs as stored, ours with bone bright
    return f"values differ by up to {worst:g}" if worst > limit else ""


def _place_differs(volume: Volume, k: int, image: object) -> str:
    if not volume.placed or volume.sources[k][1]:
        return ""
    size, point = image.GetSize(), image.TransformIndexToPhysicalPoint  # type: ignore[attr-defined]
    for column, row in ((0, 0), (size[0] - 1, 0), (0, size[1] - 1)):
        theirs = np.array(point((column, row, 0)[: image.GetDimension()]))  # type: ignore[attr-defined]
        ours = (volume.affine @ [k if volume.kind == "volume" else 0, row, column, 1])[:3][: len(theirs)]
        if np.abs(ours - theirs).max() > 0.05:
            return f"lies {np.abs(ours - theirs).max():.2f} mm beside its place"
    return ""


def main(folder: Path) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print("| series | images | loaded as | refused because | SimpleITK |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        spool = Spool(Path(scratch) / "spool", durable=False)
        for where, instances in series_below(folder, Path(scratch) / "unpacked"):
            for _, part, result in volumes(spool, instances):
                name = f"{where} ({instances[0].modality or 'no modality'})" + (f", {part}" if part else "")
                if isinstance(result, str):
                    print(f"| {name} | {len(instances)} | | {result} | |", flush=True)
                    continue
                print(f"| {name} | {len(instances)} | {_told(result)} | | {_compared(result)} |", flush=True)


def _told(volume: Volume) -> str:
    size = " × ".join(map(str, volume.voxels.shape))
    spacing = " × ".join(f"{v:.4g}" for v in volume.spacing_mm[0 if volume.kind == "volume" else 1 :])
    low, high = volume.voxels.min(), volume.voxels.max()
    placed = "" if volume.placed else ", not placed"
    size_of = f"{spacing} mm" if volume.stack.spacing_from else "pixels of unknown size"
    return f"{volume.kind} {size}, {size_of}, {volume.voxels.dtype} {low:g} … {high:g} {volume.unit}{placed}"


def _compared(volume: Volume) -> str:
    try:
        return differences(volume) or "equal"
    except RuntimeError:
        return "cannot read it"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
