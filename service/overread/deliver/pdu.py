"""Protocol data units of the upper layer as a requestor needs them (PS3.8 Section 9.3), by ``struct``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Pair = tuple[str, str]

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
HEADER = struct.Struct(">BxL")
COMMAND, LAST = 0x01, 0x02
OUR_MAX_PDU_BYTES = 131_072
# Larger ones bring nothing more, and peers that announce "no limit" (0) do not always mean it.
LARGEST_SENT_BYTES = 131_072

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True)
class Answer:
    """What an A-ASSOCIATE-AC says: ids of the presentation contexts that were accepted, with their transfer syntax, and
    how long a P-DATA-TF PDU may be."""

    accepted: dict[int, str]
    most_bytes: int


def associate_rq(
    called: str, calling: str, contexts: Sequence[Pair], roles: Sequence[str], implementation: Pair
) -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context for each of ``contexts``, numbered 1, 3, 5 …; for the SOP Classes
    of ``roles`` we offer to be SCP (PS3.7 D.3.3.4). ``implementation`` is the class UID and the version name."""
    items = _item(0x10, _uid(_APPLICATION_CONTEXT))
    for number, (sop_class, syntax) in enumerate(contexts):
        body = struct.pack(">Bxxx", 2 * number + 1) + _item(0x30, _uid(sop_class)) + _item(0x40, _uid(syntax))
        items += _item(0x20, body)
    user = _item(0x51, struct.pack(">L", OUR_MAX_PDU_BYTES)) + _item(0x52, _uid(implementation[0]))
    for sop_class in roles:
        user += _item(0x54, struct.pack(">H", len(sop_class)) + _uid(sop_class) + b"\x00\x01")
    user += _item(0x55, _uid(implementation[1]))
    items += _item(0x50, user)
    head = struct.pack(">Hxx16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
    return pdu(ASSOCIATE_RQ, head + items)


def associate_ac(body: bytes) -> Answer:
    """Read the value of an A-ASSOCIATE-AC. Raises ValueError when it is none."""
    accepted: dict[int, str] = {}
    most = 0
    for kind, value in _items(body[68:]):
        if kind == 0x21 and len(value) >= 4 and value[2] == 0:
            accepted[value[0]] = next((_text(v) for k, v in _items(value[4:]) if k == 0x40), "")
        elif kind == 0x50:
            most = next((int.from_bytes(v, "big") for k, v in _items(value) if k == 0x51), 0)
    most = min(most or LARGEST_SENT_BYTES, LARGEST_SENT_BYTES)
    if most <= 12:
        raise ValueError("a maximum length that leaves no room for data")
    return Answer(accepted, most)


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU with its header."""
    return HEADER.pack(kind, len(body)) + body


def data_pdus(
    context_id: int, value: memoryview, room: int, control: int, *, ends: bool
) -> Iterator[bytes | memoryview]:
    """The pieces of P-DATA-TF PDUs, of one item and at most ``room`` bytes of value each, that carry ``value``.

    ``control`` is COMMAND or 0; the last PDU says that the message's part is complete when it ``ends`` here.
    """
    size = len(value)
    for at in range(0, size, room) if size else (0,):
        piece = value[at : at + room]
        last = LAST if ends and at + room >= size else 0
        yield struct.pack(">BxLLBB", P_DATA_TF, len(piece) + 6, len(piece) + 2, context_id, control | last)
        yield piece


def data_values(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Context id, message control header and fragment of each item in a P-DATA-TF PDU. Raises ValueError."""
    at, size = 0, len(body)
    while at < size:
        if size - at < 6:
            raise ValueError("a P-DATA-TF PDU that ends in the middle of an item")
        length, context_id, control = struct.unpack_from(">LBB", body, at)
        if length < 2 or at + 4 + length > size:
            raise ValueError("a presentation data value that does not fit into its PDU")
        yield context_id, control, body[at + 6 : at + 4 + length]
        at += 4 + length


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        if len(body) - at < 4:
            raise ValueError("an item without its length")
        kind, length = struct.unpack_from(">BxH", body, at)
        if at + 4 + length > len(body):
            raise ValueError("an item that runs past the end")
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def _uid(uid: str) -> bytes:
    return uid.encode("ascii", "replace")


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")
