"""Whether the pixels are all there, as far as that can be told without decoding one (PS3.5 Section 8 and Annex A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from pydicom.uid import UID

from overread.domain.errors import Refused
from overread.spool.elements import PIXEL_DATA, PIXEL_TAGS, TEXT_BYTES, Encoding, Place, ReadAt, name, scan
from overread.spool.limits import Limits

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
NATIVE = {IMPLICIT, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", BIG_ENDIAN}
# The pixels lie elsewhere, at the Pixel Data Provider URL (PS3.5 Section A.6).
REFERENCED = {f"1.2.840.10008.1.2.4.{n}" for n in (94, 95, 204, 205)}
RLE = "1.2.840.10008.1.2.5"
# One stream for all frames (PS3.5 Sections A.4.5 to A.4.8).
VIDEO = {f"1.2.840.10008.1.2.4.{n}{part}" for n in range(100, 109) for part in ("", ".1")}
# With what a codestream begins: SOI of JPEG and JPEG-LS, SOC and SIZ of JPEG 2000, or the box of a file around it.
SOI = (b"\xff\xd8\xff",)
SOC = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
BEGINNINGS = {
    **{f"1.2.840.10008.1.2.4.{n}": SOI for n in (*range(50, 67), 70, 80, 81)},
    **{f"1.2.840.10008.1.2.4.{n}": SOC for n in (90, 91, 92, 93, 201, 202, 203)},
    **{f"1.2.840.10008.1.2.4.{n}": JXL for n in (110, 112)},
}
# The part of the samples that chroma subsampling leaves (PS3.3 Section C.7.6.3.1.2).
SUBSAMPLED = {"YBR_FULL_422": (2, 3), "YBR_PARTIAL_422": (2, 3), "YBR_PARTIAL_420": (1, 2)}
PROVIDER_URL = 0x00287FE0
HEADER_BYTES = 8
GROUP_LENGTH_BYTES = 12


@dataclass(frozen=True)
class Source:
    """A data set, no longer deflated: how to read it, how long it is, and how it is encoded."""

    read_at: ReadAt
    size_bytes: int
    encoding: Encoding


class Described(Protocol):
    """What the header says of the pixels."""

    transfer_syntax_uid: str

    def uid(self, keyword: str) -> str: ...
    def text(self, keyword: str) -> str: ...
    def integer(self, keyword: str) -> int | None: ...


def require_pixels(pixels: Mapping[int, Place], header: Described, source: Source, limits: Limits) -> None:
    """Raises Refused when pixels are fewer than the header says, not written as the transfer syntax says, more than is
    believed of one frame, or missing from an image."""
    if not pixels:
        _require_none(header, source)
        return
    frame = native_bytes(header, 1)
    if frame > limits.frame_bytes:
        raise Refused(f"one frame has {frame >> 20} MB by its header, {limits.frame_bytes >> 20} MB are taken")
    for tag, place in pixels.items():
        what, syntax = f"{PIXEL_TAGS[tag]} {name(tag)}", header.transfer_syntax_uid
        if place.encapsulated != (tag == PIXEL_DATA and syntax not in NATIVE):
            how = "is encapsulated" if place.encapsulated else "is not encapsulated"
            raise Refused(f"{what} {how}: it is not encoded as its transfer syntax says")
        if place.encapsulated:
            _require_fragments(what, place, header, source.read_at)
        elif place.length < (least := native_bytes(header, header.integer("NumberOfFrames") or 1)):
            raise Refused(f"{what} has {place.length} bytes, and the header says {least}")


def _require_fragments(what: str, place: Place, header: Described, read_at: ReadAt) -> None:
    syntax = header.transfer_syntax_uid
    frames = 1 if syntax in VIDEO else header.integer("NumberOfFrames") or 1
    fragments = place.items - 1  # the first item is the Basic Offset Table
    if fragments < frames:
        raise Refused(f"{what} has {max(fragments, 0)} fragments for {frames} frames")
    table = _item_length(read_at, place.offset)
    if table % 4 or table > 4 * frames:
        raise Refused(f"{what} has a Basic Offset Table of {table} bytes for {frames} frames")
    first = place.offset + HEADER_BYTES + table
    head = read_at(first + HEADER_BYTES, min(_item_length(read_at, first), 64))
    if not _begins(head, syntax):
        raise Refused(f"{what} does not begin like {UID(syntax).name}")


def _item_length(read_at: ReadAt, at: int) -> int:
    return int.from_bytes(read_at(at + 4, 4), "little")


def _begins(head: bytes, syntax: str) -> bool:
    if syntax == RLE:  # PS3.5 Section G.5: the number of segments, and where the first one starts
        return len(head) == 64 and 1 <= int.from_bytes(head[:4], "little") <= 15 and head[4:8] == b"\x40\0\0\0"
    return head.startswith(BEGINNINGS.get(syntax, (b"",)))


def native_bytes(header: Described, frames: int) -> int:
    """How long pixels are at least when they are not compressed (PS3.5 Section 8.1); 0 when the header is silent."""
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    bits, samples = header.integer("BitsAllocated") or 0, header.integer("SamplesPerPixel") or 1
    part, whole = SUBSAMPLED.get(header.text("PhotometricInterpretation"), (1, 1))
    return -(-rows * columns * samples * frames * bits * part // (8 * whole))


def _require_none(header: Described, source: Source) -> None:
    """An image without pixels was cut off between two elements, unless its writer counted what it wrote.

    Some archives hold the headers of images alone; those that are known give the length of each group.
    """
    if not _is_image(header.uid("SOPClassUID")) or header.transfer_syntax_uid in REFERENCED:
        return
    lengths = scan(source.read_at, source.size_bytes, source.encoding, _SIGNS).values
    if PROVIDER_URL in lengths:
        return
    tag = max(lengths, default=0)
    order = "<" if source.encoding.little else ">"
    length = lengths[tag][1] if tag else b""
    start = source.size_bytes - GROUP_LENGTH_BYTES - (struct.unpack(f"{order}I", length)[0] if len(length) == 4 else 0)
    if len(length) != 4 or start < 0 or source.read_at(start, 4) != struct.pack(f"{order}HH", tag >> 16, 0):
        raise Refused("the data set of an image ends without pixel data")


@lru_cache(maxsize=512)
def _is_image(sop_class_uid: str) -> bool:
    """Whether the Image Pixel Module is mandatory: the Standard names such SOP Classes '… Image Storage'."""
    return "Image Storage" in UID(sop_class_uid).name


class _Signs(Mapping[int, int]):
    """All group lengths (gggg,0000) (PS3.5 Section 7.2), of 4 bytes each, and the Pixel Data Provider URL."""

    def __getitem__(self, tag: int) -> int:
        if tag not in self:
            raise KeyError(tag)
        return TEXT_BYTES if tag == PROVIDER_URL else 4

    def __contains__(self, tag: object) -> bool:
        return isinstance(tag, int) and (not tag & 0xFFFF or tag == PROVIDER_URL)

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, 1 << 32, 1 << 16))

    def __len__(self) -> int:
        return 1 << 16


_SIGNS = _Signs()
