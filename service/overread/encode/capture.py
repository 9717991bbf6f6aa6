"""Secondary captures: pictures with outlines, and the summary, for whoever shows neither segmentations nor reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from overread.domain.result import Result
from overread.encode import gate, gate_pictures, seal, shell
from overread.encode.display import Drawn, draw
from overread.encode.keyslices import key_slices
from overread.encode.page import page, panel
from overread.encode.sources import Reference, Sources, read_sources
from overread.ports import Read

DESCRIPTION = "AI result, not a diagnosis: {what}"


class CaptureEncoder:
    """Makes Secondary Capture Image Storage instances (1.2.840.10008.5.1.4.1.1.7), RGB: the summary, then the slices
    that matter, one after the other in a series of their own."""

    kind = "sc"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.7"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``sc….dcm``. Raises Misplaced, and leaves the file, when an outline is not drawn where its segment is,
        or something else than what was drawn reads back."""
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        drawn = pictures(read, sources)
        made = [_write(read, sources, page(read, drawn), folder, number=1, of=drawn)]
        for number, one in enumerate(drawn, 2):
            made.append(_write(read, sources, panel(read, one), folder, number=number, of=[one]))
        return made


def pictures(read: Read, sources: Sources) -> list[Drawn]:
    """The slices that matter, drawn; the middle one when nothing was found."""
    slices = key_slices(read) or [len(read.volume.voxels) // 2]
    return [draw(read, sources, k) for k in slices]


def _write(
    read: Read, sources: Sources, picture: Image.Image, folder: Path, *, number: int, of: Sequence[Drawn]
) -> Result:
    pixels = np.asarray(picture)
    header = seal.header(read, sources, CaptureEncoder.kind, "sc", instance=f"sc {number}", number=number)
    made = shell.shell(sources, CaptureEncoder.sop_class_uid, "OT", header)
    single = number > 1
    _image(made, pixels, sources, DESCRIPTION.format(what="outlines" if single else "summary"))
    references = [sources.references[one.k] for one in of]
    made.SourceImageSequence = shell.source_images(references)
    if single:
        made.PatientOrientation = orientation(sources, of[0].k)
    seal.seal(made, read, sources)
    name = seal.file_name(CaptureEncoder.kind, "", number)
    result = seal.save(made, folder, name, CaptureEncoder.kind, provenance=str(read.provenance))
    _pass(read, sources, folder / result.path, pixels, (references, of[0] if single else None))
    return result


def _pass(
    read: Read,
    sources: Sources,
    path: Path,
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    shows: tuple[list[Reference], Drawn | None],
) -> None:
    references, drawn = shows
    expected = gate_pictures.Expected(read, pixels, references, drawn)
    gate.pass_object(path, read, sources, lambda found: gate_pictures.check(found, expected))


def _image(
    made: Dataset, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], sources: Sources, description: str
) -> None:
    """SC Equipment, General Image, Image Pixel (PS3.3 A.8.1)."""
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    made.PatientOrientation = ""
    shell.tell_laterality(made, sources)
    made.BurnedInAnnotation = shell.burned_in(sources)
    made.DerivationDescription = description
    made.ImageComments = description
    made.LossyImageCompression = "00"
    made.Rows, made.Columns, _ = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    data = pixels.tobytes()
    made.PixelData = data + bytes(len(data) % 2)
    made["PixelData"].VR = "OB"


def orientation(sources: Sources, k: int) -> list[str] | str:
    """Patient Orientation (PS3.3 C.7.6.1.1.1) of slice ``k``: the header's own, or what its direction cosines say."""
    header = sources.headers[k]
    cosines = header.get("ImageOrientationPatient") if sources.volume.placed else None
    if not cosines:
        own = sources.headers[0].get("PatientOrientation", "")
        return [str(v) for v in own] if own and not isinstance(own, str) else ""
    values = [float(v) for v in cosines]
    return [_letters(values[:3]), _letters(values[3:])]


def _letters(direction: Sequence[float]) -> str:
    towards = {0: ("R", "L"), 1: ("A", "P"), 2: ("F", "H")}
    strong = sorted((n for n in range(3) if abs(direction[n]) > 0.2), key=lambda n: -abs(direction[n]))
    return "".join(towards[n][direction[n] > 0] for n in strong)
