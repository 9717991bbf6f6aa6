"""Parametric maps: how probable each segment is, voxel by voxel, and what a classifier looked at (PS3.3 A.75)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from overread.domain.codes import NO_UNITS, Code
from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, gate_segmentation, identity, seal, shell
from overread.encode.codes import coded
from overread.encode.multiframe import SINGLE
from overread.encode.reread import Reread
from overread.encode.segmentation import in_space
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

PROBABILITY = Code("122157", "DCM", "Probability")
SALIENCY = {
    "grad-cam": Code("130403", "DCM", "Gradient-weighted class activation"),
    "occlusion": Code("130404", "DCM", "Saliency"),
}


@dataclass(frozen=True)
class Layered:
    """One map: of what, by which quantity, and its values (slices, rows, columns), 0 where it says nothing."""

    title: str
    quantity: Code
    values: NDArray[np.floating[Any]]


class MapEncoder:
    """Makes Parametric Map Storage instances (1.2.840.10008.5.1.4.1.1.30), 32 bit float, one for each segment or
    class."""

    kind = "map"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.30"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``map….dcm``; nothing for a model that gives no maps, and for images that lie nowhere in space.

        Raises Misplaced, and leaves the file, when what was written does not read back as the values on their slices.
        """
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        if not in_space(read) or not sources.headers[0].get("FrameOfReferenceUID"):
            return ()
        found = [layered for layered in maps(read) if layered.values.any()]
        return [write_map(read, sources, one, folder, number) for number, one in enumerate(found, 1)]


def maps(read: Read) -> Iterator[Layered]:
    """Every map of a reading."""
    found = read.findings
    titles = {segment.value: segment.title for segment in found.segments}
    for value, values in found.probabilities.items():
        yield Layered(titles.get(value, str(value)), PROBABILITY, values)
    names = {label.value: label.name for label in read.card.labels}
    for value, values in found.saliency.items():
        yield Layered(names.get(value, str(value)), SALIENCY[read.card.saliency or "occlusion"], values)


def write_map(read: Read, sources: Sources, one: Layered, folder: Path, number: int, *, kind: str = "map") -> Result:
    """One map, number ``number`` of its ``kind``, on the slices on which it says something."""
    held = [int(k) for k in np.flatnonzero(one.values.any(axis=(1, 2)))]
    header = seal.header(read, sources, kind, kind, instance=f"{kind} {number}", number=number)
    made = _build(sources, one, held, header)
    seal.pin_dimensions(made, identity.uid(read.key, f"{kind} {number} dimensions"))
    shell.tell_laterality(made, sources)
    seal.seal(made, read, sources)
    result = seal.save(made, folder, seal.file_name(kind, "", number), kind, provenance=str(read.provenance))
    gate.pass_object(folder / result.path, read, sources, checker(sources, one.values))
    return result


def checker(sources: Sources, values: NDArray[np.floating[Any]]) -> Callable[[Reread], None]:
    """The check of a map: each frame lies where the slice lies that it names, and has its values."""

    def check(found: Reread) -> None:
        slices = {(r.sop_instance_uid, r.frame): k for k, r in enumerate(sources.references)}
        told = set()
        for group, (first, part) in zip(gate_segmentation.frame_groups(found, sources), found.frames, strict=True):
            k = slices[group.named]
            plane = np.zeros(values.shape[1:], np.float32)
            plane[first : first + len(part)] = part
            if not np.array_equal(plane, values[k].astype(np.float32)):
                raise Misplaced(f"the map differs from what the model gave on slice {k + 1}")
            told.add(k)
        if told != {int(k) for k in np.flatnonzero(values.any(axis=(1, 2)))}:
            raise Misplaced("the map leaves out slices")

    return check


def _build(sources: Sources, one: Layered, held: list[int], header: dict[str, Any]) -> ParametricMap:
    values = one.values[held].astype(np.float32)
    top = float(values.max())
    mapping = RealWorldValueMapping(
        one.quantity.meaning[:16],
        f"{one.title}: {one.quantity.meaning}"[:64],
        coded(NO_UNITS),
        (float(values.min()), float(values.max())),
        slope=1,
        intercept=0,
        quantity_definition=coded(one.quantity),
    )
    made = ParametricMap(
        source_images=[_stand_in(sources, k) for k in held],
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(top / 2, max(top, 1e-3), voi_lut_function="LINEAR_EXACT")],
        content_label="MAP",
        content_description=f"{one.title}: {one.quantity.meaning}"[:64],
        image_flavor="VOLUME",
        derived_pixel_contrast="NONE",
        **header,
    )
    _refer(made, sources)
    return made


def _stand_in(sources: Sources, k: int) -> Dataset:
    """Slice ``k`` under a UID of its own: frames of an enhanced image share theirs, and the builder wants to tell."""
    image = sources.standin(k)
    image.add_new("SOPInstanceUID", "UI", f"1.2.{k + 1}")
    image.add_new("SOPClassUID", "UI", SINGLE.get(image.SOPClassUID, image.SOPClassUID))
    return image


def _refer(made: Dataset, sources: Sources) -> None:
    """The stand-ins' UIDs become the slices'."""
    for group in made.PerFrameFunctionalGroupsSequence:
        for source in group.DerivationImageSequence[0].SourceImageSequence:
            kind, uid, frame = sources.references[int(source.ReferencedSOPInstanceUID.split(".")[-1]) - 1]
            source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = kind, uid
            if frame:
                source.ReferencedFrameNumber = frame
    series = made.ReferencedSeriesSequence[0]
    named = {sources.references[int(i.ReferencedSOPInstanceUID.split(".")[-1]) - 1] for i in _instances(series)}
    series.ReferencedInstanceSequence = _references(sources, {r.sop_instance_uid for r in named})
    if "SourceImageSequence" in made:
        del made.SourceImageSequence


def _instances(series: Dataset) -> Sequence[Dataset]:
    found: Sequence[Dataset] = series.ReferencedInstanceSequence
    return found


def _references(sources: Sources, named: set[str]) -> list[Dataset]:
    made = []
    for uid, kind in sources.objects.items():
        if uid in named:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, uid
            made.append(item)
    return made
