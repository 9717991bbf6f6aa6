"""Results whose truth is known: a phantom, and its labels as the encoders of the service write what a model says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread

from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.delivery import Item
from overread.domain.geometry import stack
from overread.domain.reading import Reading
from overread.domain.result import Result
from overread.encode import encoders
from overread.load.series import load_files
from overread.measure.findings import find
from overread.ports import Read
from overread.simulate.marked import mark
from overread.simulate.phantom import BONE, LABELS, LEFT_LUNG, RIGHT_LUNG, ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study
from overread.spool.header import read_file

GRID, SEED = Grid((32, 96, 96), (8.0, 4.0, 4.0)), 2026
LUNG, SIDES = Code("39607008", "SCT", "Lung"), (Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right"))
SHOWN = (
    Label(LEFT_LUNG, LABELS[LEFT_LUNG], LUNG, modifier=SIDES[0], color=(72, 133, 237)),
    Label(RIGHT_LUNG, LABELS[RIGHT_LUNG], LUNG, modifier=SIDES[1], color=(60, 186, 84)),
    Label(BONE, LABELS[BONE], Code("272673000", "SCT", "Bone"), color=(244, 194, 13)),
)


@dataclass(frozen=True)
class Sample:
    """CT images (kind ``ct``), a segmentation and a report, in this order; ``phantom`` is the truth."""

    items: tuple[Item, ...]
    phantom: ChestPhantom

    def of_kind(self, kind: str) -> list[Item]:
        """Those of one kind."""
        return [item for item in self.items if item.result.kind == kind]


def make_sample(folder: Path, study_uid: str, made_at: str) -> Sample:
    """Write a study of nobody, with the truth about it, into ``folder``; ``made_at`` is ISO 8601 in UTC."""
    phantom = chest_phantom(SEED, GRID, nodules=0, noise_hu=15.0, healthy=True)
    images = mark(write_study(phantom, folder / "phantom", seed=SEED), folder / "study", study_uid)
    results = _results(phantom, images, folder / "results", made_at)
    items = [Item(_described(path), path) for path in images]
    return Sample((*items, *(Item(r, folder / "results" / r.path) for r in results)), phantom)


def _results(phantom: ChestPhantom, images: Sequence[Path], folder: Path, made_at: str) -> list[Result]:
    instances = [replace(read_file(path), path=str(path)) for path in images]
    volume = load_files(stack(instances))
    known = np.isin(phantom.truth, [label.value for label in SHOWN])
    findings = find(Reading(label_map=np.where(known, phantom.truth, 0).astype(np.uint8)), volume, _card(folder))
    folder.mkdir()
    read = Read(f"acceptance {volume.stack.digest()}", made_at, _card(folder), volume, findings)
    made: list[Result] = []
    for encoder in encoders(("seg", "sr")):
        made.extend(encoder.encode(read, folder, made))
    return made


def _card(folder: Path) -> Card:
    return Card(
        name="acceptance",
        version="1",
        title="overread acceptance test",
        manufacturer="overread",
        engine="none",
        weights="",
        weights_sha256=hashlib.sha256(b"the known truth of a phantom").hexdigest(),
        accepts=Accepts("CT"),
        labels=SHOWN,
        folder=folder,
        purpose="The known truth of a generated phantom.",
    )


def _described(path: Path) -> Result:
    header = dcmread(path, stop_before_pixels=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    instance, series, study = header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID
    syntax = str(header.file_meta.TransferSyntaxUID)
    return Result("ct", str(header.SOPClassUID), str(instance), str(series), str(study), syntax, path.name, digest)
