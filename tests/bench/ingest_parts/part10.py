"""The head of a DICOM file: which instance it is, and where its data set begins."""

from __future__ import annotations

import struct
from typing import NamedTuple

LONG_VRS = (b"OB", b"OW", b"UN", b"SQ", b"UT")


class Head(NamedTuple):
    """File meta information; ``start`` is where the data set begins."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    start: int


def read_head(content: bytes) -> Head | None:
    """The head of a Part 10 file; None when ``content`` is no such file, or stops within its head."""
    if content[128:132] != b"DICM" or content[132:136] != b"\2\0\0\0":
        return None
    try:
        start = 144 + struct.unpack_from("<L", content, 140)[0]
        texts = {element: value.rstrip(b"\0 ").decode("ascii") for element, value in _meta(content, start).items()}
        return Head(texts[0x0002], texts[0x0003], texts[0x0010], start)
    except (struct.error, KeyError, UnicodeDecodeError):
        return None


def _meta(content: bytes, end: int) -> dict[int, bytes]:
    values, position = {}, 144
    while position < end:
        element, vr = struct.unpack_from("<2xH2s", content, position)
        if vr in LONG_VRS:
            length, position = struct.unpack_from("<L", content, position + 8)[0], position + 12
        else:
            length, position = struct.unpack_from("<H", content, position + 6)[0], position + 8
        if vr == b"UI":
            values[element] = content[position : position + length]
        position += length
    return values
