"""The head of a Part 10 file (PS3.10 Section 7.1), and who wrote it."""

from __future__ import annotations

import struct
from functools import lru_cache

IMPLEMENTATION_CLASS_UID = "2.25.260317914783402561928736451928374650193"
IMPLEMENTATION_VERSION = "OVERREAD_0_1"


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str, receiving_ae: str = ""
) -> bytes:
    """Preamble and file meta information for an instance received from ``source_ae`` by our ``receiving_ae``."""
    before, after = _frame(sop_class_uid, transfer_syntax_uid, source_ae, receiving_ae)
    group = before + _uid(0x0003, sop_instance_uid) + after
    return bytes(128) + b"DICM" + _short(0x0000, b"UL", struct.pack("<L", len(group))) + group


@lru_cache(maxsize=1024)
def _frame(sop_class_uid: str, transfer_syntax_uid: str, source_ae: str, receiving_ae: str) -> tuple[bytes, bytes]:
    version = struct.pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"
    writer = _uid(0x0012, IMPLEMENTATION_CLASS_UID) + _text(0x0013, b"SH", IMPLEMENTATION_VERSION)
    sender = _text(0x0016, b"AE", source_ae) if source_ae else b""
    receiver = _text(0x0018, b"AE", receiving_ae) if receiving_ae else b""
    return version + _uid(0x0002, sop_class_uid), _uid(0x0010, transfer_syntax_uid) + writer + sender + receiver


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return _short(element, b"UI", value + b"\0" * (len(value) % 2))


def _text(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return _short(element, vr, value + b" " * (len(value) % 2))


def _short(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
