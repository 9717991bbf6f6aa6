"""DIMSE command sets (PS3.7 Section 6.3.1, Annex E): group 0000 in Implicit VR Little Endian, by ``struct``."""

from __future__ import annotations

import struct
from collections.abc import Mapping

Value = int | str | tuple[int, ...]
CommandSet = Mapping[int, Value]

CLASS, REQUESTED_CLASS, FIELD, MESSAGE_ID, ANSWERED = 0x0002, 0x0003, 0x0100, 0x0110, 0x0120
MOVE_DESTINATION, PRIORITY, DATA_SET, STATUS, COMMENT = 0x0600, 0x0700, 0x0800, 0x0900, 0x0902
ERROR_ID, INSTANCE, REQUESTED_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x0903, 0x1000, 0x1001, 0x1002, 0x1008
REMAINING, COMPLETED, FAILED, WARNED, MOVE_AE, MOVE_ID = 0x1020, 0x1021, 0x1022, 0x1023, 0x1030, 0x1031

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
RESPONSE = 0x8000
NO_DATA_SET, HAS_DATA_SET = 0x0101, 0x0001

_NUMBERS = frozenset({
    FIELD, MESSAGE_ID, ANSWERED, PRIORITY, DATA_SET, STATUS, ERROR_ID, EVENT_TYPE, ACTION_TYPE, REMAINING, COMPLETED,
    FAILED, WARNED, MOVE_ID,
})  # fmt: skip
_UIDS = frozenset({CLASS, REQUESTED_CLASS, INSTANCE, REQUESTED_INSTANCE})


def encode(values: CommandSet) -> bytes:
    """The command set with its group length; numbers are US, UIDs are padded with NUL, other text with a space."""
    body = b"".join(_element(element, value) for element, value in sorted(values.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def decode(command: bytes) -> dict[int, Value]:
    """What a whole command set says, without its group length. Raises ValueError when it is none."""
    found: dict[int, Value] = {}
    at, size = 0, len(command)
    while at < size:
        if size - at < 8:
            raise ValueError("a command set ends in the middle of an element")
        group, element, length = struct.unpack_from("<HHL", command, at)
        value = command[at + 8 : at + 8 + length]
        at += 8 + length
        if group != 0 or at > size or element in found:
            raise ValueError("a command set with an element that has no place in it")
        if element in _NUMBERS and length == 2:
            found[element] = int.from_bytes(value, "little")
        elif element != 0:
            found[element] = value.decode("ascii", "replace").rstrip("\0 ")
    return found


def number(values: CommandSet, element: int) -> int | None:
    """The value of an element that is a number; None when it is absent or no number."""
    value = values.get(element)
    return value if isinstance(value, int) else None


def _element(element: int, value: Value) -> bytes:
    if isinstance(value, int):
        return struct.pack("<HHLH", 0, element, 2, value)
    if isinstance(value, tuple):
        return struct.pack(f"<HHL{len(value)}H", 0, element, 2 * len(value), *value)
    pad = "\0" if element in _UIDS else " "
    text = (value + pad * (len(value) % 2)).encode("ascii", "replace")
    return struct.pack("<HHL", 0, element, len(text)) + text
