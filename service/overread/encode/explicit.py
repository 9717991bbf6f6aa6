"""Data elements as bytes, Explicit VR Little Endian (PS3.5 7.1.2), for what repeats thousands of times."""

from __future__ import annotations

import struct

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from overread.encode.sources import UTF_8

_ITEM = struct.Struct("<HHI")
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2s2xI")
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element whose value is as long as it is; for VRs with a length of 16 bits. ``value`` is of even length."""
    return _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def text(tag: int, vr: bytes, value: str) -> bytes:
    """An element of ASCII text, padded to an even length: UIDs by a null, else by a space (PS3.5 6.2)."""
    encoded = value.encode("ascii")
    return element(tag, vr, encoded + (b"\0" if vr == b"UI" else b" ") * (len(encoded) % 2))


def start(tag: int, vr: bytes, length: int) -> bytes:
    """The head of an element with a length of 32 bits (OB, OW, SQ …)."""
    return _LONG.pack(tag >> 16, tag & 0xFFFF, vr, length)


def item(content: bytes) -> bytes:
    """One item of a sequence."""
    return item_start(len(content)) + content


def item_start(length: int) -> bytes:
    """The head of an item of so many bytes."""
    return _ITEM.pack(0xFFFE, 0xE000, length)


def sequence(tag: int, items: bytes) -> bytes:
    """A sequence of defined length."""
    return start(tag, b"SQ", len(items)) + items


def encoded(dataset: Dataset) -> bytes:
    """The elements of ``dataset``, text in UTF-8 as all results have it."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset, UTF_8)
    return bytes(buffer.getvalue())
