"""A written object read again, independent of what wrote it: header, functional groups and pixels frame by frame.

Only the header is given to pydicom. Thousands of functional groups and hundreds of megabytes of pixels are walked as
bytes, inflated on the way, so that reading back costs little time and the memory of one frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

FRAME_GROUPS, PIXELS, ITEM = 0x52009230, 0x7FE00010, 0xFFFEE000
EVIDENCE, CONTENT = 0x0040A375, 0x0040A730
FLOAT_PIXELS = 0x7FE00008
_LONG = frozenset(b.encode() for b in ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_TAG = struct.Struct("<HH")
_CHUNK = 1 << 16


class _Stream:
    """The data set of a file, inflated when it is deflated."""

    def __init__(self, file: BinaryIO, *, deflated: bool) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-15) if deflated else None
        self._ready = b""

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes; raises ValueError when there are fewer."""
        data = self.some(count)
        if len(data) != count:
            raise ValueError("the object ends too soon")
        return data

    def some(self, count: int) -> bytes:
        """``count`` bytes, or what is left."""
        if self._inflate is None:
            return self._file.read(count)
        parts, missing = [], count
        while missing:
            if not self._ready:
                fed = self._inflate.unconsumed_tail or self._file.read(_CHUNK)
                self._ready = self._inflate.decompress(fed, max(missing, _CHUNK))
                if not self._ready and not fed:
                    break
            parts.append(self._ready[:missing])
            missing -= len(parts[-1])
            self._ready = self._ready[len(parts[-1]) :]
        return b"".join(parts)


class Rows(NamedTuple):
    """The rows of a frame in which anything is: where they begin, and their pixels, (rows, columns) uint8 where binary;
    in colour, the samples of a pixel follow each other."""

    first: int
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Reread:
    """What a file holds: ``header`` without functional groups of frames, pixels, and the content and evidence of a
    report; ``head`` as bytes what comes before the pixels, without functional groups; ``groups``, ``content`` and
    ``evidence`` the values of those sequences; ``frames`` gives one frame after the other, once."""

    meta: FileMetaDataset
    header: Dataset
    head: bytes
    groups: bytes
    frames: Iterator[Rows]
    content: bytes = b""
    evidence: bytes = b""


@contextmanager
def reread(path: Path) -> Iterator[Reread]:
    """Read ``path`` again. Raises ValueError and pydicom's errors when it cannot be read."""
    with path.open("rb") as file:
        meta = read_file_meta_info(path)
        file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        syntax = UID(meta.TransferSyntaxUID)
        stream = _Stream(file, deflated=syntax == DeflatedExplicitVRLittleEndian)
        head, apart, length = _walk(stream)
        header = read_dataset(BytesIO(b"".join(e for tag, e in head if tag not in (CONTENT, EVIDENCE))), False, True)
        header.file_meta = meta
        frames = _frames(stream, header, length, path) if length is not None else iter(())
        whole = b"".join(element for _, element in head)
        yield Reread(meta, header, whole, *(apart.get(FRAME_GROUPS, b""), frames), *_report(apart))


def _report(apart: dict[int, bytes]) -> tuple[bytes, bytes]:
    return apart.get(CONTENT, b""), apart.get(EVIDENCE, b"")


def _walk(stream: _Stream) -> tuple[list[tuple[int, bytes]], dict[int, bytes], int | None]:
    """The elements before the pixels without the functional groups; the values of what is long; and the length of the
    pixels (None: there are none)."""
    head: list[tuple[int, bytes]] = []
    apart: dict[int, bytes] = {}
    while True:
        start = stream.some(8)
        if len(start) < 8:
            return head, apart, None
        group, number = _TAG.unpack_from(start)
        tag, vr = group << 16 | number, start[4:6]
        if tag == 0 and vr == b"\0\0":  # the byte that pads a deflated data set to an even length
            return head, apart, None
        if vr in _LONG:
            start += stream.read(4)
            length = int.from_bytes(start[8:12], "little")
        else:
            length = int.from_bytes(start[6:8], "little")
        if tag in (PIXELS, FLOAT_PIXELS):
            return head, apart, length
        if length == 0xFFFFFFFF:
            raise ValueError("a sequence of undefined length, which nobody here writes")
        value = stream.read(length)
        if tag in (FRAME_GROUPS, CONTENT, EVIDENCE):
            apart[tag] = value
        if tag != FRAME_GROUPS:
            head.append((tag, start + value))


def elements(data: bytes, begin: int, end: int) -> dict[int, tuple[int, int]]:
    """The elements of one item: tag → where its value begins and ends in ``data``. Lengths are defined."""
    found: dict[int, tuple[int, int]] = {}
    while begin < end:
        group, number = _TAG.unpack_from(data, begin)
        if data[begin + 4 : begin + 6] in _LONG:
            value, length = begin + 12, int.from_bytes(data[begin + 8 : begin + 12], "little")
        else:
            value, length = begin + 8, int.from_bytes(data[begin + 6 : begin + 8], "little")
        if value + length > end:
            raise ValueError("an element is longer than the item that holds it")
        found[group << 16 | number] = (value, value + length)
        begin = value + length
    return found


def items(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The items of a sequence's value: where each begins and ends in ``data``."""
    while begin < end:
        group, number = _TAG.unpack_from(data, begin)
        length = int.from_bytes(data[begin + 4 : begin + 8], "little")
        if (group << 16 | number) != ITEM or begin + 8 + length > end:
            raise ValueError("a sequence holds something that is no item")
        yield begin + 8, begin + 8 + length
        begin += 8 + length


def _frames(stream: _Stream, header: Dataset, length: int, path: Path) -> Iterator[Rows]:
    shape = int(header.Rows), int(header.Columns) * int(header.get("SamplesPerPixel", 1))
    count, bits = int(header.get("NumberOfFrames", 1)), int(header.BitsAllocated)
    if length == 0xFFFFFFFF:
        return (_held(plane) for plane in dcmread(path).pixel_array.reshape(count, *shape))
    if length != (total := -(-count * shape[0] * shape[1] * bits // 8)) + total % 2:
        raise ValueError("the pixels are not as many as the frames say")
    kind = {8: "u1", 16: "<i2" if header.get("PixelRepresentation") else "<u2", 32: "<f4"}.get(bits, "")
    return _bits(stream, shape, count) if bits == 1 else _whole(stream, shape, count, np.dtype(kind))


def _whole(stream: _Stream, shape: tuple[int, int], count: int, kind: np.dtype[Any]) -> Iterator[Rows]:
    for _ in range(count):
        yield _held(np.frombuffer(stream.read(shape[0] * shape[1] * kind.itemsize), kind).reshape(shape))


def _held(plane: NDArray[Any]) -> Rows:
    rows = np.flatnonzero(np.any(plane, axis=1))
    first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    return Rows(first, plane[first:last])


def _bits(stream: _Stream, shape: tuple[int, int], count: int) -> Iterator[Rows]:
    """One bit a pixel, the first in the lowest, running on from frame to frame (PS3.5 8.1.1). Rows that are zero are
    not unpacked."""
    (height, width), kept = shape, b""
    for n in range(count):
        lead = n * height * width % 8
        data = kept[:1] * (lead > 0) + stream.read(-(-(lead + height * width) // 8) - (lead > 0))
        kept = data[-1:]
        begin, end = _nonzero(data)
        first = max(begin * 8 - lead, 0) // width
        last = min(-(-(end * 8 - lead) // width), height) if end else first
        start = first * width + lead
        packed = np.frombuffer(data, np.uint8)[start // 8 : -(-(last * width + lead) // 8)]
        bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: (last - first) * width]
        yield Rows(first, bits.reshape(last - first, width))


def _nonzero(data: bytes) -> tuple[int, int]:
    """From which to which byte, in steps of eight, anything in ``data`` is not zero; 0, 0 when nothing is."""
    whole = len(data) // 8
    words = np.flatnonzero(np.frombuffer(data, np.uint64, whole))
    rest = any(data[whole * 8 :])
    if not len(words):
        return (whole * 8, len(data)) if rest else (0, 0)
    return int(words[0]) * 8, len(data) if rest else int(words[-1]) * 8 + 8


def readable(data: bytes) -> Dataset:
    """A data set of bytes, Explicit VR Little Endian."""
    buffer = DicomBytesIO(data)
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    found: Dataset = read_dataset(buffer, False, True)
    return found
