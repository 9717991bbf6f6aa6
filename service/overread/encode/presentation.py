"""Outlines as a Grayscale Softcopy Presentation State (PS3.3 A.33.1), for viewers that show neither SEG nor SR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
)
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.result import Result
from overread.encode import gate, seal, shell
from overread.encode.display import lines
from overread.encode.multiframe import SINGLE
from overread.encode.outline import Points
from overread.encode.reread import Reread
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
LAYER = "AI OUTLINES"


class PresentationEncoder:
    """Makes a Grayscale Softcopy Presentation State Storage instance (1.2.840.10008.5.1.4.1.1.11.1)."""

    kind = "gsps"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.11.1"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``gsps.dcm``; nothing when nothing has an outline. Raises Misplaced, and leaves the file, when other
        lines read back."""
        gate.require_consistent(read)
        drawn = {k: [line for _, line in lines(read, k)] for k in range(len(read.volume.voxels))}
        drawn = {k: found for k, found in drawn.items() if found}
        if not drawn:
            return ()
        sources = read_sources(read.volume)
        layer = GraphicLayer(LAYER, 1, description="AI result, not a diagnosis", display_color=None)
        header = seal.header(read, sources, self.kind, self.kind)
        date, time = header.pop("content_date"), header.pop("content_time")
        made = GrayscaleSoftcopyPresentationState(
            referenced_images=list({i.SOPInstanceUID: i for i in (_image(sources, k) for k in drawn)}.values()),
            content_label="AI_OUTLINES",
            content_description="AI result, not a diagnosis",
            graphic_layers=[layer],
            graphic_annotations=[_annotation(sources, k, found, layer) for k, found in drawn.items()],
            **header,
        )
        for k, annotation in zip(drawn, made.GraphicAnnotationSequence, strict=True):
            if frame := sources.references[k].frame:
                annotation.ReferencedImageSequence[0].ReferencedFrameNumber = frame
        _name_classes(made, sources)
        made.PresentationCreationDate = made.ContentDate = date
        made.PresentationCreationTime = made.ContentTime = time
        shell.tell_laterality(made, sources)
        seal.seal(made, read, sources)
        del made.ContentDate, made.ContentTime
        result = seal.save(made, folder, self.kind, self.kind, provenance=str(read.provenance))
        gate.pass_object(folder / result.path, read, sources, lambda found: _check(found, sources, drawn))
        return [result]


def _image(sources: Sources, k: int) -> Dataset:
    """Slice ``k`` as the builder wants it."""
    image = sources.standin(k)
    image.SamplesPerPixel = 1
    image.SOPClassUID = SINGLE.get(image.SOPClassUID, SECONDARY) if sources.references[k].frame else image.SOPClassUID
    return image


def _annotation(sources: Sources, k: int, found: list[Points], layer: GraphicLayer) -> GraphicAnnotation:
    objects = [
        GraphicObject(GraphicTypeValues.POLYLINE, line, AnnotationUnitsValues.PIXEL, is_filled=False) for line in found
    ]
    return GraphicAnnotation([_image(sources, k)], layer, graphic_objects=objects)


def _name_classes(item: Dataset, sources: Sources) -> None:
    """The classes of the source objects, wherever they are referred to: the builder was given slices."""
    for element in item:
        for inner in element.value if element.VR == "SQ" else ():
            uid = str(inner.get("ReferencedSOPInstanceUID", ""))
            if uid in sources.objects:
                inner.ReferencedSOPClassUID = sources.objects[uid]
            _name_classes(inner, sources)


def _check(found: Reread, sources: Sources, drawn: dict[int, list[Points]]) -> None:
    slices = {(r.sop_instance_uid, r.frame): k for k, r in enumerate(sources.references)}
    told = set()
    for annotation in found.header.GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        k = slices[str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 0))]
        there = [np.reshape(o.GraphicData, (-1, 2)) for o in annotation.GraphicObjectSequence]
        if len(there) != len(drawn[k]) or not all(
            a.shape == b.shape and np.allclose(a, b, atol=1e-3) for a, b in zip(there, drawn[k], strict=True)
        ):
            raise Misplaced(f"the presentation state draws other lines on slice {k + 1}")
        told.add(k)
    if told != set(drawn):
        raise Misplaced("the presentation state leaves out slices")
