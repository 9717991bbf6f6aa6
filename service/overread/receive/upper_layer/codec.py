"""C-STORE and C-ECHO command sets (PS3.7 Sections 9.3.1 and 9.3.5) read and written by ``struct``.

Command sets are Implicit VR Little Endian (PS3.7 Section 6.3.1). Only the elements that the Standard lists for these
messages are understood; a command set with anything else in it is left to pynetdicom.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from overread.receive.upper_layer.pdata import P_DATA_TF

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
NO_DATA_SET = 0x0101
VERIFICATION = "1.2.840.10008.1.1"
CLASS, FIELD, MESSAGE_ID, ANSWERED, PRIORITY, DATA_SET = 0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800
STATUS, COMMENT, INSTANCE, MOVE_AE, MOVE_ID = 0x0900, 0x0902, 0x1000, 0x1030, 0x1031
NUMBERS = {FIELD, MESSAGE_ID, PRIORITY, DATA_SET, MOVE_ID}
TEXTS = {CLASS, INSTANCE, MOVE_AE}
UID = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE-RQ that a data set follows."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class EchoRequest:
    """A C-ECHO-RQ."""

    message_id: int


def read_request(command: bytes) -> StoreRequest | EchoRequest | None:
    """The request in a whole command set; None when it is another one, or not quite what the Standard describes."""
    values = _elements(command)
    if values is None or not isinstance(values.get(MESSAGE_ID), int):
        return None
    message_id, field = int(values[MESSAGE_ID]), values.get(FIELD)
    if field == C_ECHO_RQ and values.get(CLASS) == VERIFICATION and values.get(DATA_SET) == NO_DATA_SET:
        return EchoRequest(message_id) if set(values) == {CLASS, FIELD, MESSAGE_ID, DATA_SET} else None
    sop_class, instance = str(values.get(CLASS, "")), str(values.get(INSTANCE, ""))
    whole = PRIORITY in values and values.get(DATA_SET, NO_DATA_SET) != NO_DATA_SET
    # An instance UID that is none is answered by whoever takes the data set; pynetdicom would abort.
    if field != C_STORE_RQ or not whole or INSTANCE not in values or not UID.fullmatch(sop_class):
        return None
    return StoreRequest(message_id, sop_class, instance)


def _elements(command: bytes) -> Mapping[int, int | str] | None:
    found: dict[int, int | str] = {}
    at, size = 0, len(command)
    while at < size:
        if size - at < 8:
            return None
        group, element, length = struct.unpack_from("<HHL", command, at)
        value = command[at + 8 : at + 8 + length]
        at += 8 + length
        if group != 0 or at > size or element in found:
            return None
        if element in NUMBERS and length == 2:
            found[element] = int.from_bytes(value, "little")
        elif element in TEXTS and (value.isascii() or element == INSTANCE):
            found[element] = value.decode("ascii", "replace").rstrip("\0 ")
        elif (element, length) != (0, 4):
            return None
    return found


def store_response(request: StoreRequest, status: int, comment: str) -> bytes:
    """The command set of a C-STORE-RSP; ``comment`` becomes the Error Comment (0000,0902), LO, if not empty."""
    return _command(
        _text(CLASS, request.sop_class_uid, "\0"),
        _number(FIELD, C_STORE_RSP),
        _number(ANSWERED, request.message_id),
        _number(DATA_SET, NO_DATA_SET),
        _number(STATUS, status),
        _text(COMMENT, comment, " ") if comment else b"",
        _text(INSTANCE, request.sop_instance_uid, "\0") if UID.fullmatch(request.sop_instance_uid) else b"",
    )


def echo_response(request: EchoRequest) -> bytes:
    """The command set of a successful C-ECHO-RSP."""
    return _command(
        _text(CLASS, VERIFICATION, "\0"),
        _number(FIELD, C_ECHO_RSP),
        _number(ANSWERED, request.message_id),
        _number(DATA_SET, NO_DATA_SET),
        _number(STATUS, 0x0000),
    )


def command_pdu(context_id: int, command: bytes) -> bytes:
    """One P-DATA-TF PDU that holds a whole command set (PS3.8 Section 9.3.5)."""
    return struct.pack(">BxLLBB", P_DATA_TF, len(command) + 6, len(command) + 2, context_id, 0x03) + command


def _command(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _text(element: int, text: str, pad: str) -> bytes:
    value = (text + pad * (len(text) % 2)).encode("ascii", "replace")
    return struct.pack("<HHL", 0, element, len(value)) + value
