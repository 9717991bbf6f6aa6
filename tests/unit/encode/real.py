"""Real studies read by a model that everybody can follow: the brightest things in the middle of the image."""

from __future__ import annotations

import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from scipy import ndimage

from overread.domain.card import Accepts, Label
from overread.domain.codes import Code
from overread.domain.reading import Box, Likelihood, Reading
from overread.domain.volume import Volume
from overread.load.series import load
from overread.measure.findings import find
from overread.ports import Read
from overread.spool import Spool
from overread.spool.header import read_file

from .conftest import ABNORMAL, CARD

BRIGHT = Label(1, "Bright part", Code("4147007", "SCT", "Mass"), ABNORMAL, color=(230, 60, 60), instances=True, most=3)
BODY = Label(2, "Body", Code("38266002", "SCT", "Entire body"), color=(60, 140, 230))
JUDGED = Label(3, "Effusion", Code("60046008", "SCT", "Pleural effusion"), ABNORMAL, color=(240, 200, 40))


@dataclass(frozen=True)
class Case:
    """Where a study lies, which of its files, and how a model takes it."""

    folder: str
    modality: str
    kind: str = "volume"
    file: str = ""


STUDIES = {
    "CT": Case("ct-head-phantom-study", "CT"),
    "MR": Case("mr-liver-small", "MR"),
    "PET": Case("pet-wholebody-with-seg", "PT"),
    "enhanced MR": Case("enhanced-multiframe", "MR", file="IM_0027_fMAP.dcm"),
    "DX": Case("us-xray-misc", "DX", "image", "dx_image"),
    "US": Case("us-xray-misc", "US", "frames", "US-PAL"),
}


def unpacked(archive: Path, folder: Path) -> list[Path]:
    """All files of an archive."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def files_of(case: Case, data: Path, folder: Path) -> list[Path]:
    """The files of the longest series of a case."""
    archives = list((data / case.folder).glob("*.tar.xz"))
    if case.file:
        return [path for path in sorted((data / case.folder).rglob("*")) if case.file in path.name][:1]
    files = unpacked(archives[0], folder / "files") if archives else sorted((data / case.folder).rglob("*.dcm"))
    found: dict[str, list[Path]] = {}
    for path in files:
        ds = dcmread(path, stop_before_pixels=True, force=True)
        if ds.get("Modality") == case.modality and "PixelSpacing" in ds and "LOCALIZER" not in ds.get("ImageType", []):
            found.setdefault(str(ds.SeriesInstanceUID), []).append(path)
    return max(found.values(), key=len)


@contextmanager
def tolerant() -> Iterator[None]:
    """pydicom warns of imperfect values, which real files have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_case(case: Case, data: Path, folder: Path, **more: object) -> Read:
    """What the model finds in a real study."""
    with tolerant():
        spool = Spool(folder / "spool", durable=False)
        instances = []
        for path in files_of(case, data, folder):
            instance = read_file(path)
            stored = spool.adopt(path, instance)
            instances.append(instance.stored(stored.path, stored.digest, "TEST"))
        accepts = Accepts(case.modality, plane="any", min_slices=1, kind=case.kind)
        volume = load(spool, instances, accepts)
    card = replace(CARD, labels=(BRIGHT, BODY, JUDGED), accepts=accepts, saliency="occlusion")
    return Read("real", "2026-11-21T08:09:10+00:00", card, volume, find(looked_at(volume), volume, card), **more)


def looked_at(volume: Volume) -> Reading:
    """The brightest part, what is brighter than half of it, a box, and a class."""
    grey = ndimage.uniform_filter(np.asarray(volume.voxels, np.float32), (1, 5, 5))
    low, high = np.percentile(grey, (30, 99.5))
    found = np.zeros(grey.shape, np.uint8)
    found[grey > low + 0.2 * (high - low)] = 2
    found[grey >= high] = 1
    found[:, :2], found[:, -2:] = 0, 0
    shape = grey.shape
    box = Box(1, 0.75, (0.0, shape[1] * 0.25, shape[2] * 0.3), (shape[0] - 1.0, shape[1] * 0.5, shape[2] * 0.45))
    bright = np.clip((grey - low) / (high - low), 0, 1).astype(np.float16)
    return Reading(
        label_map=found,
        boxes=(box,),
        classes=(Likelihood(3, 0.8125, chosen=True),),
        image=(grey * 0.5).astype(np.float32),
        probabilities={2: bright},
        saliency={3: np.where(found == 1, bright, np.float16(0))},
    )
