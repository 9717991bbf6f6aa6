"""Any program that reads a folder of DICOM and writes one: how mercure modules and MONAI application packages work.

It gets copies, never the spool's own files, an environment of its own, and a time after which it and everything that
it has started is ended. What it writes is taken only when its place can be checked (see ``returned``).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.confine import Confined
from overread.infer.engines import LPS_TO_RAS, Grid
from overread.infer.returned import collect

HEADROOM_S = 2.0  # so that the program is ended with its reason before the worker is ended without


class Program:
    """A program that is there and can be confined as its card says. Raises CardError otherwise."""

    def __init__(self, card: Card, device: str) -> None:
        if not card.external.command:
            raise CardError('the engine "external" needs [external] with `command` in the card')
        program = _found(card)
        self._card = card
        self._confined = Confined(card.external, (program, *card.external.command[1:]), device)

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Run it over the source files of ``volumes``; raises ProgramFailed, or CardError for a result out of place."""
        with TemporaryDirectory(prefix="overread-external-") as name:
            folder = Path(name)
            places = {key: folder / key for key in ("input", "nifti", "output", "home")}
            for place in places.values():
                place.mkdir()
            _give(volumes, places["input"])
            if any("{nifti}" in word for word in self._card.external.command):
                _give_nifti(volumes, places["nifti"])
            patience = max(self._card.runtime.timeout_s - HEADROOM_S, self._card.runtime.timeout_s * 0.8)
            started = time.monotonic()
            self._confined.run(
                {**places, "model": self._card.folder},
                patience,
                lambda: progress(min(0.9, (time.monotonic() - started) / patience)),
            )
            reading = collect(places["output"], self._card, volumes[0], self._confined.notes)
        progress(1.0)
        return reading


def _found(card: Card) -> str:
    name = card.external.command[0].replace("{model}", str(card.folder))
    path = shutil.which(name)
    if path is None:
        raise CardError(f"the program {name!r} is not there or is not executable")
    return str(Path(path).absolute())


def _give(volumes: Sequence[Grid], folder: Path) -> None:
    """Copies under names of ours; a link would let the program write into the spool."""
    if not all(volume.paths for volume in volumes):
        raise CardError("an external program needs the source files of its input, and there are none")
    for n, volume in enumerate(volumes, 1):
        place = folder if len(volumes) == 1 else folder / f"{n:02d}"
        place.mkdir(exist_ok=True)
        for k, path in enumerate(dict.fromkeys(volume.paths), 1):
            shutil.copyfile(path, place / f"{k:06d}.dcm")


def _give_nifti(volumes: Sequence[Grid], folder: Path) -> None:
    for n, volume in enumerate(volumes, 1):
        affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
        image = nibabel.Nifti1Image(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / f"{n:02d}.nii")
