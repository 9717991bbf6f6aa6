"""A segmentation as a file: highdicom builds its header on a piece of one pixel, what repeats is written as bytes.

Everything that highdicom decides (modules, codes, geometry, order) is taken from what it builds for two slices; what
goes with each slice or each frame is written from there on by hand, because thousands of small data sets cost most of
the time. A test compares the outcome with highdicom's own, attribute by attribute.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from highdicom import PlanePositionSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.spatial import get_volume_positions
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from pydicom.valuerep import format_number_as_ds

from overread.domain.variant import Variant
from overread.encode import explicit
from overread.encode.frames import MOST_FRACTION, Frame, Pixels
from overread.encode.part10 import Part10Writer
from overread.encode.sources import Sources

SYNTAXES = {"": DeflatedExplicitVRLittleEndian, "rle": RLELossless, "jpeg2000": JPEG2000Lossless}

LEAST_JPEG2000 = 32  # rows and columns that the codec needs

REPEATED = ("SourceImageSequence", "ReferencedSeriesSequence", "PerFrameFunctionalGroupsSequence", "PixelData")
_REFERENCED_SERIES, _SOURCE_IMAGES = 0x00081115, 0x00082112
_FRAME_GROUPS, _PIXELS = 0x52009230, 0x7FE00010
SINGLE = {  # stand-ins are slices, also those for frames of enhanced images
    "1.2.840.10008.5.1.4.1.1.2.1": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.2": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4.1": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.4": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.128.1": "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.130": "1.2.840.10008.5.1.4.1.1.128",
}
_STAND_INS = ("1.2.1", "1.2.2")


@dataclass(frozen=True)
class Multiframe:
    """A segmentation that is ready to be written: its ``header`` without pixels and without what repeats."""

    header: Dataset
    sources: Sources
    pixels: Pixels
    variant: Variant
    frames: list[Frame]
    downwards: bool
    derivation: Dataset

    def write(self, path: Path) -> str:
        """Write the Part 10 file; returns its SHA-256."""
        with Part10Writer(path, self.header.file_meta) as out:
            at = 0
            for tag, data in (
                (_REFERENCED_SERIES, self._referenced_series()),
                (_SOURCE_IMAGES, explicit.sequence(_SOURCE_IMAGES, self._references())),
                (_FRAME_GROUPS, explicit.sequence(_FRAME_GROUPS, self._groups())),
            ):
                out.write(explicit.encoded(self.header[at:tag]) + data)
                at = tag + 1
            out.write(explicit.encoded(self.header[at:]))
            self._write_pixels(out)
        return out.digest

    def _references(self) -> bytes:
        return b"".join(
            explicit.item(explicit.text(0x00081150, b"UI", kind) + explicit.text(0x00081155, b"UI", uid))
            for uid, kind in self.sources.objects.items()
        )

    def _referenced_series(self) -> bytes:
        instances = explicit.sequence(0x0008114A, self._references())
        series = explicit.text(0x0020000E, b"UI", self.sources.instances[0].series_uid)
        return explicit.sequence(_REFERENCED_SERIES, explicit.item(instances + series))

    def _groups(self) -> bytes:
        """An item of functional groups for each frame."""
        heads = {k: self._derivation(k) for k in {frame.k for frame in self.frames}}
        positions = {k: _position(self.sources, k) for k in heads}
        order = {k: n for n, k in enumerate(sorted(heads, reverse=self.downwards), 1)}
        told = self.variant.method != "labelmap" and not _shared_number(self.header)
        items = []
        for frame in self.frames:
            indices = (frame.number, order[frame.k]) if frame.number else (order[frame.k],)
            values = struct.pack(f"<{len(indices)}I", *indices)
            content = explicit.sequence(0x00209111, explicit.item(explicit.element(0x00209157, b"UL", values)))
            segment = _identification(frame.number) if told else b""
            items.append(explicit.item(heads[frame.k] + content + positions[frame.k] + segment))
        return b"".join(items)

    def _derivation(self, k: int) -> bytes:
        """Derivation Image Sequence of slice ``k``; its codes are highdicom's."""
        kind, uid, frame = self.sources.references[k]
        code = self.derivation.SourceImageSequence[0]
        source = (
            explicit.text(0x00081150, b"UI", kind)
            + explicit.text(0x00081155, b"UI", uid)
            + (explicit.text(0x00081160, b"IS", str(frame)) if frame else b"")
            + explicit.encoded(code[0x00081161:])
        )
        images = explicit.sequence(_SOURCE_IMAGES, explicit.item(source))
        return explicit.sequence(0x00089124, explicit.item(images + explicit.encoded(self.derivation[0x00082113:])))

    def _write_pixels(self, out: Part10Writer) -> None:
        if self.variant.compression:
            data = encapsulate([self._compressed(frame) for frame in self.frames])
            out.write(explicit.start(_PIXELS, b"OB", explicit.UNDEFINED) + data + b"\xfe\xff\xdd\xe0\0\0\0\0")
            return
        pixels = len(self.frames) * int(self.header.Rows) * int(self.header.Columns)
        length = -(-pixels // 8) if self.variant.method == "binary" else pixels
        out.write(explicit.start(_PIXELS, b"OB", length + length % 2))
        at, shared = 0, b""  # a frame may begin in the byte in which the one before it ends
        for offset, packed in self.pixels.pieces(self.variant.method, self.frames):
            data = packed
            if shared and offset < at:
                data = bytes([shared[0] | packed[0]]) + packed[1:]
            else:
                out.write(shared)
                out.zeros(offset - at)
            out.write(data[:-1])
            at, shared = offset + len(data), data[-1:]
        out.write(shared)
        out.zeros(length + length % 2 - at)

    def _compressed(self, frame: Frame) -> bytes:
        plane = self.pixels.plane(self.variant.method, frame)
        if self.variant.compression == "rle":
            return _rle(plane)
        return _jpeg2000(plane, 1 if self.variant.method == "binary" else 8)


def build(
    sources: Sources, pixels: Pixels, variant: Variant, descriptions: Sequence[SegmentDescription], **header: object
) -> Multiframe:
    """A segmentation of ``pixels`` on the slices of ``sources``; ``header`` are further arguments of highdicom's
    ``Segmentation``. There is at least one frame."""
    if variant.compression == "jpeg2000" and min(pixels.layer.mask.shape[1:]) < LEAST_JPEG2000:
        variant = replace(variant, compression="")
    piece = _piece(sources, variant, descriptions, header)
    frames = pixels.frames(variant.method, full=variant.full)
    item = piece.PerFrameFunctionalGroupsSequence[0]
    derivation = item.DerivationImageSequence[0]
    first = derivation.SourceImageSequence[0].ReferencedSOPInstanceUID
    downwards = first != _STAND_INS[0]
    if downwards:
        frames.sort(key=lambda frame: (frame.number, -frame.k))
    _, piece.Rows, piece.Columns = pixels.layer.mask.shape
    piece.NumberOfFrames = len(frames)
    _place(piece, sources, frames, single=variant.method == "labelmap" or len(descriptions) == 1)
    for keyword in REPEATED:
        delattr(piece, keyword)
    piece.file_meta.TransferSyntaxUID = SYNTAXES[variant.compression]
    return Multiframe(piece, sources, pixels, variant, frames, downwards, derivation)


def _piece(
    sources: Sources, variant: Variant, descriptions: Sequence[SegmentDescription], header: dict[str, object]
) -> Segmentation:
    """What highdicom makes of one pixel of the first two slices that every segment holds."""
    images = [sources.standin(k) for k in range(min(2, len(sources.instances)))]
    for image, uid in zip(images, _STAND_INS, strict=False):
        image.add_new("SOPInstanceUID", "UI", uid)  # frames share theirs; what refers to them is written below
        image.add_new("SOPClassUID", "UI", SINGLE.get(image.SOPClassUID, image.SOPClassUID))
        image.add_new("Rows", "US", 1)  # new elements: those that are there are the source's
        image.add_new("Columns", "US", 1)
    ones = np.ones((len(images), 1, 1), np.uint8)
    options: dict[str, object] = {}
    if variant.method == "fractional":
        ones = np.ones((len(images), 1, 1, len(descriptions)), np.float32)
        options = {"fractional_type": "PROBABILITY", "max_fractional_value": MOST_FRACTION}
    return Segmentation(
        source_images=images,
        pixel_array=ones,
        segmentation_type=variant.method.upper(),
        segment_descriptions=descriptions,
        **options,
        **header,
    )


def _place(piece: Segmentation, sources: Sources, frames: list[Frame], *, single: bool) -> None:
    """What depends on all slices: the distance between them, and whether frames differ by their place alone."""
    shared = piece.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    positions = sources.positions
    measures = shared.PixelMeasuresSequence[0]
    spacing, _ = get_volume_positions(positions, orientation)
    measures.pop("SpacingBetweenSlices", None)
    if spacing is not None:
        measures.SpacingBetweenSlices = format_number_as_ds(spacing)
    piece.pop("DimensionOrganizationType", None)
    held = sorted({frame.k for frame in frames})
    if single and len(held) > 1:
        step, _ = get_volume_positions(positions[held], orientation, sort=False)
        if step is not None and step > 0:
            piece.DimensionOrganizationType = "3D"


def _position(sources: Sources, k: int) -> bytes:
    position = PlanePositionSequence("PATIENT", sources.headers[k].ImagePositionPatient)[0].ImagePositionPatient
    value = explicit.text(0x00200032, b"DS", "\\".join(str(v) for v in position))
    return explicit.sequence(0x00209113, explicit.item(value))


def _shared_number(header: Dataset) -> bool:
    """Whether one segment's number is told once for all frames."""
    return "SegmentIdentificationSequence" in header.SharedFunctionalGroupsSequence[0]


def _identification(number: int) -> bytes:
    value = explicit.element(0x0062000B, b"US", struct.pack("<H", number))
    return explicit.sequence(0x0062000A, explicit.item(value))


def _rle(plane: NDArray[np.uint8]) -> bytes:
    rows, columns = plane.shape
    data: bytes = RLELosslessEncoder.encode(
        plane,
        # Named, because the library would take another one that is installed, and one of them aborts the process.
        encoding_plugin="pydicom",
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
    )
    return data


def _jpeg2000(plane: NDArray[np.uint8], bits: int) -> bytes:
    from openjpeg.utils import encode_array

    pixels = plane.astype(bool) if bits == 1 else plane
    data: bytes = encode_array(pixels, bits_stored=bits, photometric_interpretation=2, use_mct=False)
    return data
