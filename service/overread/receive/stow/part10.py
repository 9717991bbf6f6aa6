"""The head of a Part 10 file as it comes (PS3.10 Section 7.1): which instance it is, and where its data set begins.

Read in one pass, element by element, in bounded memory. A group length that is missing or wrong does not matter, as
long as the elements themselves are whole.
"""

from __future__ import annotations

import struct

from overread.domain.errors import Refused
from overread.spool.elements import LONG_FORM, SHORT_FORM, name
from overread.spool.header import DEFLATED, PADDING, UID_LETTERS

PREAMBLE_BYTES, PREFIX = 128, b"DICM"
MOST_META_BYTES = 64 << 10
STEP_BYTES = 1 << 10
SHORT_HEADER_BYTES, LONG_HEADER_BYTES = 8, 12
META_GROUP, GROUP_LENGTH = b"\x02\x00", 0x00020000
UIDS = {
    0x00020002: "MediaStorageSOPClassUID",
    0x00020003: "MediaStorageSOPInstanceUID",
    0x00020010: "TransferSyntaxUID",
}

Piece = bytes | memoryview


class FileHead:
    """Give it pieces until it gives something back: that is the beginning of the data set."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = PREAMBLE_BYTES + len(PREFIX)
        self._ends_at: int | None = None  # as the group length says
        self._values: dict[int, bytes] = {}
        self.taken = 0  # so many bytes of the last piece are in ``raw``

    def take(self, piece: Piece) -> list[Piece] | None:
        """The next bytes of the file; None while its head goes on. Raises Refused when it is none.

        What is given back is valid as long as ``piece`` is.
        """
        self.taken = 0
        while not self._complete():
            if self.taken == len(piece):
                return None
            step = piece[self.taken : self.taken + STEP_BYTES]
            self._data += step
            self.taken += len(step)
        self.uid(0x00020002), self.uid(0x00020003), self.uid(0x00020010)
        return [bytes(memoryview(self._data)[self._at :]), piece[self.taken :]]

    @property
    def raw(self) -> bytes:
        """All that was taken so far."""
        return bytes(self._data)

    @property
    def missing(self) -> str:
        """Why it is none when nothing follows."""
        if len(self._data) < PREAMBLE_BYTES + len(PREFIX):
            return "it is no DICOM file: it has less than 132 bytes (PS3.10 Section 7.1)"
        return "it ends within its file meta information"

    def uid(self, tag: int) -> str:
        """One of ``UIDS``; raises Refused when it is missing or none (PS3.5 Section 9.1)."""
        value = self._values.get(tag, b"").strip(PADDING)
        if not 0 < len(value) <= 64 or value.translate(None, UID_LETTERS):
            raise Refused(f"{UIDS[tag]} of the file meta information is {'not a valid UID' if value else 'missing'}")
        return value.decode("ascii")

    def known(self, tag: int) -> str:
        """As ``uid``, empty when there is none."""
        try:
            return self.uid(tag)
        except Refused:
            return ""

    def _complete(self) -> bool:
        """Whether the file meta information is at hand to its last byte."""
        data = self._data
        if len(data) < PREAMBLE_BYTES + len(PREFIX):
            return False
        if not data.startswith(PREFIX, PREAMBLE_BYTES):
            raise Refused("it is no DICOM file: no DICM after 128 bytes (PS3.10 Section 7.1)")
        while len(data) - self._at >= LONG_HEADER_BYTES:
            if self._at == self._ends_at and self._deflated():
                return True  # what follows is compressed, and may look like anything
            if data[self._at : self._at + 2] != META_GROUP:
                return True
            tag, start, end = self._element()
            if end > MOST_META_BYTES:
                raise Refused(f"the file meta information is longer than {MOST_META_BYTES} bytes")
            if end > len(data):
                return False
            if tag == GROUP_LENGTH:
                self._ends_at = end + int.from_bytes(data[start:end], "little")
            self._values[tag] = bytes(data[start:end])
            self._at = end
        return False

    def _element(self) -> tuple[int, int, int]:
        """The tag of the next element, and where its value starts and ends; its header is at hand."""
        group, element, vr, length = struct.unpack_from("<HH2sH", self._data, self._at)
        tag, start = group << 16 | element, self._at + SHORT_HEADER_BYTES
        if vr in LONG_FORM:
            length, start = struct.unpack_from("<L", self._data, start)[0], self._at + LONG_HEADER_BYTES
        elif vr not in SHORT_FORM:
            raise Refused(f"the file meta information cannot be read at {name(tag)}")
        return tag, start, start + length

    def _deflated(self) -> bool:
        return self.known(0x00020010) in DEFLATED
