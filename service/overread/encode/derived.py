"""Derived images of image-to-image models: a series like its source's (CT, MR), else a parametric map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from highdicom._standard_utils import construct_module_tree, get_iod_module_map, get_sop_class_iod_map
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from overread.domain.codes import Code
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, seal, shell
from overread.encode.gate_segmentation import POSITION_TOLERANCE_MM, floats
from overread.encode.maps import Layered, write_map
from overread.encode.reread import Reread
from overread.encode.segmentation import in_space
from overread.encode.sources import Sources, read_sources, unperturbed
from overread.ports import Read

SIGNAL = Code("112032", "DCM", "Signal Intensity")
FAMILIES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
_USUAL = {"ScanningSequence": "RM", "SequenceVariant": "NONE"}
_STEPS = 65535
_OURS = frozenset(("ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"))


class ImageEncoder:
    """Makes CT Image Storage or MR Image Storage instances, as many as the source has slices, in a series of their own;
    of other sources one Parametric Map."""

    kind = "image"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.4"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``image….dcm``; nothing for a model that derives no image, and for images that lie nowhere in space.

        Raises Misplaced, and leaves the file, when a slice does not read back as it was derived, in its place.
        """
        derived = read.findings.image
        if derived is None or not in_space(read):
            return ()
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        if str(sources.references[0].sop_class_uid) not in FAMILIES:
            one = Layered("Derived image", SIGNAL, derived)
            return [write_map(read, sources, one, folder, 1, kind="image")]
        low, high = float(derived.min()), float(derived.max())
        scale = ((high - low) / _STEPS or 1.0, low)
        return [_write(read, sources, k, scale, folder) for k in range(len(derived))]


def _write(read: Read, sources: Sources, k: int, scale: tuple[float, float], folder: Path) -> Result:
    derived = read.findings.image
    assert derived is not None
    kind, uid, _ = sources.references[k]
    header = seal.header(read, sources, "image", "image", instance=f"image {k + 1}", number=k + 1)
    made = shell.shell(sources, kind, FAMILIES[kind], header)
    _carry(made, read.volume.paths[k])
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER" if FAMILIES[kind] == "MR" else "AXIAL"]
    made.DerivationDescription = f"Made by {read.card.title} {read.card.version}; AI result"
    made.SourceImageSequence = shell.source_images([sources.references[k]])
    made.FrameOfReferenceUID = sources.headers[0].get("FrameOfReferenceUID", "")
    shell.tell_laterality(made, sources)
    _pixels(made, derived[k], scale)
    seal.seal(made, read, sources)
    name = seal.file_name("image", "", k + 1)
    result = seal.save(made, folder, name, "image", provenance=str(read.provenance))
    check = _checker(derived[k], sources.headers[k], uid, scale)
    gate.pass_object(folder / result.path, read, sources, check, alike=k > 0)
    return result


def _carry(made: Dataset, path: str) -> None:
    """What the mandatory modules of the IOD demand, from the source's header; what it lacks is left empty where that
    may be (type 2)."""
    with unperturbed():
        source = dcmread(path, stop_before_pixels=True)
        iod = get_sop_class_iod_map()[str(made.SOPClassUID)]
        modules = [m["key"] for m in get_iod_module_map()[iod] if m["usage"] == "M"]
        made.PatientPosition = str(source.get("PatientPosition", ""))
        for module in modules:
            if module in (
                "image-pixel",
                "general-series",
                "general-equipment",
                "sop-common",
                "patient",
                "general-study",
            ):
                continue
            for keyword, entry in construct_module_tree(module)["attributes"].items():
                _carry_one(made, source, keyword, entry["type"].value)


def _carry_one(made: Dataset, source: Dataset, keyword: str, kind: str) -> None:
    if keyword in made or keyword in _OURS or kind not in ("1", "2", "1C", "2C") or dictionary_VR(keyword) == "SQ":
        return
    if keyword in source and (source[keyword].value not in (None, "") or kind.startswith("2")):
        made.add(source[keyword])
    elif kind == "2":
        setattr(made, keyword, None)
    elif kind == "1" and keyword in _USUAL:
        setattr(made, keyword, _USUAL[keyword])


def _pixels(made: Dataset, plane: NDArray[np.float32], scale: tuple[float, float]) -> None:
    made.Rows, made.Columns = plane.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.RescaleSlope, made.RescaleIntercept = (format_number_as_ds(v) for v in scale)
    made.RescaleType = "US"
    stored = stored_values(plane, scale)
    made.PixelData = stored.tobytes()
    made["PixelData"].VR = "OW"
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "WindowCenter", "WindowWidth"):
        made.pop(keyword, None)


def stored_values(plane: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.uint16]:
    """As they are stored: uint16, times ``scale``'s slope plus its intercept the derived values."""
    found: NDArray[np.uint16] = np.rint((plane.astype(np.float64) - scale[1]) / scale[0]).astype(np.uint16)
    return found


def _checker(
    plane: NDArray[np.float32], source: Dataset, uid: str, scale: tuple[float, float]
) -> Callable[[Reread], None]:
    def check(found: Reread) -> None:
        header = found.header
        if [str(i.ReferencedSOPInstanceUID) for i in header.SourceImageSequence] != [uid]:
            raise Misplaced("the derived image does not refer to its source slice")
        away = np.linalg.norm(floats(header.ImagePositionPatient) - floats(source.ImagePositionPatient))
        same = all(
            header.get(k) == source.get(k) for k in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
        )
        if away > POSITION_TOLERANCE_MM or not same:
            raise Misplaced("the derived image does not lie where its source slice lies")
        ((first, part),) = found.frames
        whole = np.zeros(plane.shape, np.float64)
        whole[first : first + len(part)] = part
        back = whole * float(header.RescaleSlope) + float(header.RescaleIntercept)
        if np.abs(back - plane).max() > scale[0]:
            raise Misplaced("the derived image is not what the model made")

    return check
