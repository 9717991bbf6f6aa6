"""Outlines as an RT Structure Set (PS3.3 A.19.3): each segment a region of interest, each boundary a contour in mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from overread.domain.errors import Misplaced
from overread.domain.findings import Segment
from overread.domain.result import Result
from overread.encode import gate, identity, seal, shell
from overread.encode.codes import coded
from overread.encode.keyhole import joined
from overread.encode.outline import contours
from overread.encode.reread import Reread
from overread.encode.segmentation import in_space
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

CLOSE = 0.01  # of the distance between slices
MOST_POINTS = 1800  # three numbers each, in the 65,534 bytes that an explicit length of 16 bits can say


class StructureEncoder:
    """Makes an RT Structure Set Storage instance (1.2.840.10008.5.1.4.1.1.481.3)."""

    kind = "rtstruct"
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.481.3"

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:  # noqa: ARG002
        """Write ``rtstruct.dcm``; nothing without segments, and for images that lie nowhere in space. Raises Misplaced,
        and leaves the file, when the contours do not enclose what was found."""
        gate.require_consistent(read)
        sources = read_sources(read.volume)
        frame = sources.headers[0].get("FrameOfReferenceUID")
        if not read.findings.segments or not in_space(read) or not frame:
            return ()
        made = shell.shell(sources, self.sop_class_uid, "RTSTRUCT", seal.header(read, sources, self.kind, self.kind))
        made.StructureSetLabel, made.StructureSetName = "AI", f"{read.card.title}: AI result"[:64]
        made.StructureSetDate, made.StructureSetTime = made.ContentDate, made.ContentTime
        made.OperatorsName = made.PositionReferenceIndicator = ""
        made.FrameOfReferenceUID = str(frame)
        made.ApprovalStatus = "UNAPPROVED"
        made.ReferencedFrameOfReferenceSequence = [_frame(sources, str(frame))]
        made.StructureSetROISequence = [_region(s, str(frame), read) for s in read.findings.segments]
        made.ROIContourSequence = [_contours(s, read, sources) for s in read.findings.segments]
        made.RTROIObservationsSequence = [_observation(s) for s in read.findings.segments]
        seal.seal(made, read, sources)
        del made.ContentDate, made.ContentTime
        result = seal.save(made, folder, self.kind, self.kind, provenance=str(read.provenance))
        gate.pass_object(folder / result.path, read, sources, lambda found: _check(found, read, sources))
        return [result]


def _frame(sources: Sources, uid: str) -> Dataset:
    images = []
    for kind, instance, frame in sources.references:
        images.append(_image(kind, instance, frame))
    series, study, made = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = sources.instances[0].series_uid, images
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = sources.instances[0].study_uid
    study.RTReferencedSeriesSequence = [series]
    made.FrameOfReferenceUID, made.RTReferencedStudySequence = uid, [study]
    return made


def _image(kind: str, instance: str, frame: int) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = kind, instance
    if frame:
        made.ReferencedFrameNumber = frame
    return made


def _region(segment: Segment, frame: str, read: Read) -> Dataset:
    made = Dataset()
    made.ROINumber, made.ReferencedFrameOfReferenceUID, made.ROIName = segment.value, frame, segment.title[:64]
    made.ROIGenerationAlgorithm = "AUTOMATIC"
    made.ROIGenerationDescription = f"{read.card.title} {read.card.version}"[:64]
    made.TrackingUID = identity.tracking_uid(read, segment.value)
    made.TrackingID = segment.title
    return made


def _contours(segment: Segment, read: Read, sources: Sources) -> Dataset:
    made = Dataset()
    made.ReferencedROINumber, made.ROIDisplayColor = segment.value, list(segment.label.color)
    mask = read.findings.layer_of(segment.value)
    made.ContourSequence = [
        _contour(k, line, read, sources) for k in range(len(mask)) for line in _lines(mask[k] == segment.value)
    ]
    return made


def _lines(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around ``plane`` (rows, columns), none longer than a value of VR DS may be: else in two halves."""
    found = joined(contours(plane))
    if all(len(line) <= MOST_POINTS for line in found):
        return found
    rows = np.flatnonzero(plane.any(axis=1))
    middle = int(rows[len(rows) // 2])
    upper, lower = plane.copy(), plane.copy()
    upper[middle:], lower[:middle] = False, False
    return [*_lines(upper), *_lines(lower)]


def _contour(k: int, line: NDArray[np.float64], read: Read, sources: Sources) -> Dataset:
    made = Dataset()
    made.ContourImageSequence = [_image(*sources.references[k])]
    made.ContourGeometricType, made.NumberOfContourPoints = "CLOSED_PLANAR", len(line) - 1
    made.ContourData = [format_number_as_ds(round(float(v), 4)) for v in in_patient(read, k, line[:-1]).ravel()]
    return made


def in_patient(read: Read, k: int, line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2), (column, row) as in ``outline``, on slice ``k``, in mm, LPS: (n, 3)."""
    index = np.column_stack([np.full(len(line), float(k)), line[:, 1] - 0.5, line[:, 0] - 0.5, np.ones(len(line))])
    found: NDArray[np.float64] = (index @ read.volume.affine.T)[:, :3]
    return found


def _observation(segment: Segment) -> Dataset:
    made = Dataset()
    made.ObservationNumber = made.ReferencedROINumber = segment.value
    made.RTROIInterpretedType, made.ROIInterpreter = "", ""
    made.RTROIIdentificationCodeSequence = [coded(segment.label.type)]
    return made


def _check(found: Reread, read: Read, sources: Sources) -> None:
    """The area that the contours enclose is the segment's, slice by slice, in mm², and each lies on its slice."""
    header = found.header
    numbers = [int(roi.ROINumber) for roi in header.StructureSetROISequence]
    if numbers != [segment.value for segment in read.findings.segments]:
        raise Misplaced("the structure set does not have exactly the segments that were found")
    places = {(r.sop_instance_uid, r.frame): k for k, r in enumerate(sources.references)}
    inverse = np.linalg.inv(read.volume.affine)
    for roi in header.ROIContourSequence:
        mask = read.findings.layer_of(int(roi.ReferencedROINumber)) == int(roi.ReferencedROINumber)
        crossed = np.zeros(mask.shape, bool)
        for contour in roi.ContourSequence:
            image = contour.ContourImageSequence[0]
            k = places[str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 0))]
            points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
            index = np.column_stack([points, np.ones(len(points))]) @ inverse.T
            if np.abs(index[:, 0] - k).max() > CLOSE:
                raise Misplaced(f"a contour does not lie on slice {k + 1}, which it names")
            crossed[k] ^= _filled(index[:, 1:3], mask.shape[1:])
        if not np.array_equal(crossed, mask):
            raise Misplaced(f"the contours of segment {int(roi.ReferencedROINumber)} do not enclose it")


def _filled(corners: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels within a line of (row, column) corners that runs along their edges: by its upright pieces."""
    toggles = np.zeros((shape[0], shape[1] + 1), np.int64)
    for (r0, c0), (r1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if abs(c0 - c1) < 0.25 and abs(r0 - r1) > 0.25:
            low, high = sorted((round(r0 + 0.5), round(r1 + 0.5)))
            toggles[low:high, round(c0 + 0.5)] ^= 1
    found: NDArray[np.bool_] = (np.cumsum(toggles, axis=1) % 2).astype(bool)[:, : shape[1]]
    return found
