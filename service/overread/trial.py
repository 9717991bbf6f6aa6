"""``overread models check`` and ``try``: a model run here and now, on a tiny volume or on a folder of DICOM files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from overread.adopt.bundle import describe
from overread.adopt.validate import Remark, faults, remarks
from overread.domain.card import Card
from overread.domain.errors import CardError, OverreadError, Stumbled, Unfit
from overread.domain.findings import Findings
from overread.domain.geometry import Stack
from overread.domain.reading import Reading
from overread.domain.result import Result
from overread.domain.study import Instance, Study, group
from overread.domain.volume import Volume
from overread.ledger.jobs import Decision
from overread.load.align import align
from overread.load.quality import require_fit
from overread.load.series import load_files
from overread.measure.findings import find
from overread.ports import Progress, Read
from overread.route.choice import choose as inputs
from overread.route.router import route
from overread.simulate.bench import dicom_files
from overread.simulate.verdict import Overlay, montage
from overread.spool.frames import SpoolFrames
from overread.spool.header import read_file

if TYPE_CHECKING:
    from overread.infer.worker import WorkerProcess

TINY = (24, 40, 36)
TINY_SPACING_MM = (2.5, 1.3, 1.1)
MADE_AT = "2000-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Trial:
    """What ``try`` made: the series that was read and why, the findings, and the files."""

    chosen: str
    findings: Findings
    results: tuple[Result, ...]
    picture: Path
    seconds: float


def check(card: Card) -> Iterator[Remark]:
    """All remarks on a model's files, then what loading and running it on a tiny volume tells."""
    yield from remarks(card)
    if any(remark.wrong for remark in faults(card)):
        yield Remark("it was not run: mend the above first", wrong=True)
        return
    yield from run_tiny(card)


def run_tiny(card: Card) -> Iterator[Remark]:
    """Load the model and read noise: does it run, and does it say what its card names?"""
    began = time.monotonic()
    try:
        with _worker(card) as worker:
            volume, reading = read_tiny(worker, card)
        findings = find(reading, volume, card)
    except OverreadError as error:
        yield Remark(str(error), wrong=True)
        return
    yield from (Remark(f"adapted: {note}") for note in reading.notes)
    if volume.voxels.shape != TINY and len(volume.voxels) > 1:
        yield Remark("it reads images of its own size only; for others its preprocessing would have to pad or resize")
    yield from _unnamed(reading, card)
    shape, seconds = " × ".join(map(str, volume.voxels.shape)), time.monotonic() - began
    yield Remark(f"loaded and read {shape} voxels of noise in {seconds:.1f} s: {summary(findings)}")


def read_tiny(worker: WorkerProcess, card: Card) -> tuple[Volume, Reading]:
    """Let a model read noise: a volume, one picture where it reads no more, or what its bundle names as its size."""
    count = max(1, len(card.inputs))
    shapes = [TINY, (1, *TINY[1:]), *own_shapes(card)]
    for shape in shapes[:-1]:
        with contextlib.suppress(Unfit, Stumbled):
            volume = tiny_volume(shape)
            return volume, worker.read([volume] * count, lambda _: None)
    volume = tiny_volume(shapes[-1])
    return volume, worker.read([volume] * count, lambda _: None)


def own_shapes(card: Card) -> list[tuple[int, int, int]]:
    """The size of input that a bundle names, for those that read no other; (slices, rows, columns)."""
    try:
        inputs = describe(card.folder).inputs.values()
    except CardError:
        return []
    sizes = [given.get("spatial_shape") for given in inputs if isinstance(given, dict)]
    whole = [s for s in sizes if isinstance(s, list) and all(str(n).isdigit() and 0 < int(n) <= 256 for n in s)]
    return [(int(s[2]) if len(s) == 3 else 1, int(s[1]), int(s[0])) for s in whole if len(s) in (2, 3)]


def tiny_volume(shape: tuple[int, int, int] = TINY) -> Volume:
    """Noise with a brighter block, oblique and anisotropic, as the smallest input that still shows a fault."""
    angle = np.radians(12)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn[:, [2, 1, 0]] * np.array(TINY_SPACING_MM)
    voxels = np.random.default_rng(7).normal(0, 80, shape)
    voxels[tuple(slice(n // 5, n - n // 5) for n in shape)] += 200
    slices = tuple(Instance(f"1.{k + 1}", "", "1", "1", rows=shape[1], columns=shape[2]) for k in range(shape[0]))
    return Volume(voxels.astype(np.int16), Stack(slices, affine, TINY_SPACING_MM), ())


def try_folder(card: Card, folder: Path, out: Path, progress: Progress) -> Trial:
    """Read the series of ``folder`` that the model would choose, and write SEG, SR and a picture into ``out``.

    Raises Unfit, with the reason for each series, when the model would read none.
    """
    from overread.encode import encoders

    files = dicom_files(folder)
    began = time.monotonic()
    volumes, chosen = choose(card, files)
    volume = volumes[0]
    with _worker(card) as worker:
        reading = worker.read(volumes, progress)
    findings = find(reading, volume, card)
    out.mkdir(parents=True, exist_ok=True)
    read = Read(f"try {volume.stack.digest()} {card.name} {card.digest}", MADE_AT, card, volume, findings)
    made: list[Result] = []
    for encoder in encoders(("seg", "sr")):
        made.extend(encoder.encode(read, out, made))
    picture = out / f"{card.name}.png"
    draw(volume, findings, picture)
    return Trial(chosen, findings, tuple(made), picture, time.monotonic() - began)


def choose(card: Card, files: Sequence[Path]) -> tuple[Sequence[Volume], str]:
    """The volumes that the model would read among DICOM files, and the reason; raises Unfit when there are none."""
    instances: list[Instance] = []
    for path in files:
        try:
            instances.append(replace(read_file(path), path=str(path.resolve())))
        except OverreadError:
            continue  # what the listener would not take, such as a DICOMDIR
    decisions: list[Decision] = []
    reader = SpoolFrames(Path)
    readable: list[Study] = []
    for uid in sorted({i.study_uid for i in instances}):
        study = group(uid, 1, [i for i in instances if i.study_uid == uid])
        told, planned = route(study, [card], reader=reader)
        decisions += told
        readable += [study] if planned else []
    if not readable:
        reasons = "; ".join(f"{d.series_title}: {d.reason}" for d in decisions if d.series_uid) or "there are no images"
        raise Unfit(f"{card.name} would read none of it: {reasons}")
    why = next((f"{d.series_title}: {d.reason}" for d in decisions if d.chosen), "")
    return _volumes(readable[0], card, reader), why


def _volumes(study: Study, card: Card, reader: SpoolFrames) -> Sequence[Volume]:
    """One for each input of the card, on the grid of the first; raises Unfit when the gate does not let it pass."""
    best = [choice.best for choice in inputs(study, card, reader) if choice.best is not None]
    for verdict in best:
        if verdict.stack is None:
            raise Unfit(verdict.reason)
    volumes = [load_files(verdict.stack) for verdict in best if verdict.stack is not None]
    require_fit(volumes[0], card)
    return align(volumes, [row.name for row in card.inputs]) if len(volumes) > 1 else volumes


def draw(volume: Volume, findings: Findings, path: Path) -> None:
    """A PNG: slices through what was found, images above overlays; boxes are drawn as frames."""
    mask, names, colors = findings.mask.copy(), {}, {}
    for layer in findings.overlays:
        mask[mask == 0] = layer[mask == 0]
    for segment in findings.segments:
        names[segment.value], colors[segment.label.name] = segment.title, segment.label.color
    for n, found in enumerate(findings.detections, len(findings.segments) + 1):
        if n < 256:
            _frame(mask, n, found.low, found.high)
            names[n], colors[found.label.name] = found.title, found.label.color
    image = (findings.image if findings.image is not None else volume.voxels).astype(np.float32)
    slices, rows, _ = volume.stack.spacing_mm
    low, high = (float(v) for v in np.percentile(image, (1, 99.5)))
    window = (-1000.0, 400.0) if volume.stack.instances[0].modality == "CT" and findings.image is None else (low, high)
    montage(Overlay(image, mask, names, slices / rows), colors, path, window=window)


def summary(findings: Findings) -> str:
    """What was found, in words."""
    told = [f"{s.title} {_ml(s.measurements)}".strip() for s in findings.segments]
    told += [f"{d.title} {d.score:.2f}" for d in findings.detections]
    told += [f"{j.label.name} {j.probability:.2f}{' (chosen)' if j.chosen else ''}" for j in findings.judgements]
    told += ["a derived image"] if findings.image is not None else []
    more = f" and {len(told) - 12} more" if len(told) > 12 else ""
    return (", ".join(told[:12]) + more) if told else "nothing found"


def _ml(measurements: Sequence[object]) -> str:
    volumes = [m for m in measurements if getattr(m, "unit", None) and m.unit.value == "ml"]  # type: ignore[attr-defined]
    return f"{volumes[0].value:.1f} ml" if volumes else ""  # type: ignore[attr-defined]


def _unnamed(reading: Reading, card: Card) -> Iterator[Remark]:
    """Values that the model gives and the card does not name."""
    given = {box.label for box in reading.boxes} | {c.label for c in reading.classes} | set(reading.masks)
    if reading.label_map is not None:
        given |= set(np.unique(reading.label_map).tolist()) - {0}
    unknown = sorted(given - {label.value for label in card.labels} - set(card.ignored))
    if unknown:
        named = ", ".join(map(str, unknown[:10]))
        yield Remark(f"it gives the values {named}, which the card's [[labels]] do not name", wrong=True)


@contextmanager
def _worker(card: Card) -> Iterator[WorkerProcess]:
    from overread.infer.worker import WorkerProcess

    worker = WorkerProcess(card, card.runtime.device, 0, memory_bytes=card.runtime.memory_mb << 20)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.kill()


def _frame(mask: NDArray[np.uint8], value: int, low: Sequence[float], high: Sequence[float]) -> None:
    """Draw a box's outline into the empty voxels of its slices."""
    a, b = np.maximum(np.round(low), 0).astype(int), np.minimum(np.round(high), np.array(mask.shape) - 1).astype(int)
    if (b < a).any():
        return
    part = mask[a[0] : b[0] + 1, a[1] : b[1] + 1, a[2] : b[2] + 1]
    edge = np.ones(part.shape, bool)
    edge[:, 1:-1, 1:-1] = False
    part[edge & (part == 0)] = value
