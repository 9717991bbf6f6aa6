"""Cutting P-DATA-TF PDUs (PS3.8 Section 9.3.5, Annex E) where they lie, at whatever border the network split them."""

from __future__ import annotations

import struct
from typing import NamedTuple

P_DATA_TF = 0x04
HEADER_BYTES = 6
COMMAND = 0x01
LAST = 0x02
BOTH_HEADERS = struct.Struct(">BxLLBB").unpack_from


class Malformed(Exception):
    """The bytes are no P-DATA-TF PDU."""


class Fragment(NamedTuple):
    """A piece of a presentation data value. ``ends`` says that the value ends with this piece.

    ``control`` is the message control header: bit 0 command, bit 1 last fragment of it (PS3.8 Annex E.2). ``piece``
    is a view on the buffer and must be used before the next read.
    """

    context_id: int
    control: int
    piece: memoryview
    ends: bool


class Cutter:
    """Takes bytes in any portions and gives fragments; stops before a PDU that is not P-DATA-TF."""

    def __init__(self, longest_pdu_bytes: int) -> None:
        self._longest = longest_pdu_bytes
        self._pdu_left = 0  # bytes of the PDU's value that have not come
        self._value_left = 0  # of them, bytes of the present presentation data value
        self._context_id = self._control = 0
        self._head = bytearray()  # a header that came in two portions

    @property
    def between_pdus(self) -> bool:
        """Whether the next byte begins a PDU."""
        return not self._pdu_left and not self._head

    def cut(self, view: memoryview) -> tuple[int, list[Fragment]]:
        """How many bytes of ``view`` were used, and what they held; raises Malformed."""
        at, size, found = 0, len(view), []
        while at < size:
            if self._value_left:
                end = min(at + self._value_left, size)
                self._pdu_left -= end - at
                self._value_left -= end - at
                found.append(Fragment(self._context_id, self._control, view[at:end], not self._value_left))
                at = end
            elif self._pdu_left or self._head or not self._usual(view, at):
                if self.between_pdus and view[at] != P_DATA_TF:
                    break
                piece = view[at : at + HEADER_BYTES - len(self._head)]
                self._head += piece
                if len(self._head) == HEADER_BYTES and self._header():
                    found.append(Fragment(self._context_id, self._control, view[:0], True))
                at += len(piece)
            else:
                at += 2 * HEADER_BYTES
        return at, found

    def _usual(self, view: memoryview, at: int) -> bool:
        """Take the headers of a PDU and of the one item that fills it; False when that is not what lies there."""
        if len(view) - at < 2 * HEADER_BYTES:
            return False
        kind, pdu, length, context_id, control = BOTH_HEADERS(view, at)
        if kind != P_DATA_TF or length != pdu - 4 or not 2 < length <= self._longest - 4:
            return False
        self._context_id, self._control = context_id, control
        self._pdu_left = self._value_left = length - 2
        return True

    def _header(self) -> bool:
        """Take a whole header; True when it is that of a presentation data value without a value."""
        head = bytes(self._head)
        self._head.clear()
        if not self._pdu_left:
            self._pdu_left = int.from_bytes(head[2:], "big")
            if self._pdu_left > self._longest:
                raise Malformed("a P-DATA-TF PDU longer than was negotiated")
        else:
            # Six bytes: the item's length, and the first two bytes that it counts.
            length, self._context_id, self._control = struct.unpack(">LBB", head)
            self._pdu_left -= HEADER_BYTES
            self._value_left = length - 2
            if not 0 <= self._value_left <= self._pdu_left:
                raise Malformed("a presentation data value that does not fit into its PDU")
            if not self._value_left:
                self._check_rest()
                return True
        self._check_rest()
        return False

    def _check_rest(self) -> None:
        # Fewer bytes than a header: to read one would take bytes of the next PDU.
        if 0 < self._pdu_left - self._value_left < HEADER_BYTES:
            raise Malformed("a P-DATA-TF PDU that ends in the middle of an item")
