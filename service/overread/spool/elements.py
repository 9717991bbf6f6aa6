"""The data elements of an encoded data set, one after the other (PS3.5 Section 7), each checked against the end.

A data set whose last element was cut off, or whose lengths lie, must not be acknowledged. So every element's header is
read, up to the last one. Values are jumped over by arithmetic: the memory is constant and a gigabyte of pixels costs
nothing. What nests is followed with a stack of our own: depth is the sender's choice, and Python's stack is not theirs.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from overread.domain.errors import Refused
from overread.spool.depth import nests_deeper, room
from overread.spool.limits import LIMITS, Limits

# ``read_at(offset, count)`` gives ``count`` bytes from ``offset``, fewer only at the end of the data set.
ReadAt = Callable[[int, int], bytes]

PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = {PIXEL_DATA: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
TEXT_BYTES = 64 << 10
SEQUENCE_BYTES = 1 << 20

WINDOW_BYTES = 16 << 10
# After a jump the next header is often followed by another jump, as between fragments: most of a window would be waste.
LANDING_BYTES = 4 << 10

UNDEFINED = 0xFFFFFFFF
ITEM_HEADER = struct.pack("<HH", 0xFFFE, 0xE000)  # without VR there is only the little endian kind
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# Below are command elements, from there on items and delimiters: neither is an element of a data set (PS3.5 Section 7).
COMMAND_END, DELIMITERS = 0x00010000, 0xFFFE0000
# PS3.5 Table 7.1-2: these have a length of 16 bits, and all others, those still to be invented among them, one of 32.
SHORT_FORM = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
OTHER = frozenset(b"OB OD OF OL OV OW".split())
LONG_FORM = OTHER | frozenset(b"SQ SV UC UN UR UT UV".split())
FIRST_DELIMITER, PIXEL_GROUP = DELIMITERS >> 16, PIXEL_DATA >> 16


@dataclass(frozen=True)
class Encoding:
    """How a transfer syntax writes data elements (PS3.5 Section 10), by the name that its errors give."""

    name: str
    explicit: bool = True
    little: bool = True


# A value as it lies there: its VR, empty where the encoding does not write it, and its bytes.
Value = tuple[bytes, bytes]


class Place(NamedTuple):
    """Where a value lies, its delimiters included; ``encapsulated`` when its length was undefined (PS3.5 A.4).

    ``items`` counts the Basic Offset Table and the fragments then.
    """

    offset: int
    length: int
    encapsulated: bool
    items: int = 0


@dataclass
class Elements:
    """What was asked for, of the top level."""

    values: dict[int, Value] = field(default_factory=dict)
    pixels: dict[int, Place] = field(default_factory=dict)


def scan(
    read_at: ReadAt, size_bytes: int, encoding: Encoding, wanted: Mapping[int, int], limits: Limits = LIMITS
) -> Elements:
    """Read a whole data set and give the values of the ``wanted`` tags, each mapped to the most bytes it may have.

    Raises Refused when any element, at any depth, is not what the encoding allows or does not end where it must, when
    one of the wanted comes twice, or when an element comes after the pixels that belongs before them.
    """
    found = Elements()
    _Walk(read_at, size_bytes, encoding, wanted, found, limits=limits).to_the_end()
    return found


def name(tag: int) -> str:
    """A tag as the Standard writes it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Inside(enum.Enum):
    """What may come next within a value of undefined length (PS3.5 Sections 7.5 and A.4)."""

    SEQUENCE = enum.auto()
    ITEM = enum.auto()
    FRAGMENTS = enum.auto()


# Tag, VR, where the value starts, its length.
_Header = tuple[int, bytes, int, int]
_ReadHeader = Callable[[int], _Header]
# What is open, innermost last: what may come next in it, and how its headers are read.
_Stack = list[tuple[_Inside, _ReadHeader]]


class _Walk:
    """A position that moves forward through the data set, with a window of bytes around it."""

    def __init__(
        self,
        read_at: ReadAt,
        size_bytes: int,
        encoding: Encoding,
        wanted: Mapping[int, int],
        found: Elements,
        *,
        limits: Limits,
    ) -> None:
        self._read_at = read_at
        self._size = size_bytes
        self._encoding = encoding
        self._wanted = wanted
        self._found = found
        self._limits = limits
        self._left = limits.elements
        self._deep_bytes = room(1, limits.depth)
        self._items = 0  # in the value of undefined length that was passed last
        # Up to ``_last`` the window holds whole headers, but for what the end of the data set cuts off.
        self._data, self._base, self._last = b"", 0, -1
        order = "<" if encoding.little else ">"
        self._explicit_header = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit_header = struct.Struct("<HHI").unpack_from
        self._length = struct.Struct(f"{order}I").unpack_from

    def to_the_end(self) -> None:
        """Go over every element, note what is wanted of those that are in none; raises Refused at the first wrong."""
        size = self._size
        header = self._first_header()
        at = 0
        while size - at >= 8:
            if self._encoding.explicit and not self._found.pixels:
                at = self._leap(at)
                if self._left < 0:
                    raise self._wrong_end(0, at, 0)
                if size - at < 8:
                    break
            tag, vr, start, length = header(at)
            if not COMMAND_END <= tag < DELIMITERS:
                raise Refused(f"{name(tag)} is out of place (byte {at})")
            self._left -= 1
            undefined = length == UNDEFINED
            if not undefined and length >= self._deep_bytes:
                self._enter((tag, vr, start, length), header, 1)
            end = self._past(tag, vr, start, header) if undefined else start + length
            if end > size or self._left < 0:
                raise self._wrong_end(tag, start, length)
            self._note(tag, vr, start, end, undefined)
            at = end
        # Some writers pad files to a whole number of words, which is not worth losing an image for.
        if any(self.between(at, size)):
            raise Refused("the data set ends in the middle of an element's tag or length")

    def _leap(self, at: int) -> int:
        """Over the elements with VR that lie in the window and are as most are; the position of the first other one.

        What is done here for nearly every element of every image is written for speed, and decides nothing: whatever
        is unusual is left where it is.
        """
        data, unpack, length_at = self._data, self._explicit_header, self._length
        wanted, values, deep = self._wanted, self._found.values, self._deep_bytes
        index, filled = at - self._base, len(data)
        whole, most = self._size - self._base, self._last - self._base + 1
        while 0 <= index < most:
            group, element, vr, length = unpack(data, index)
            start = index + 8
            if vr not in SHORT_FORM:
                if vr not in LONG_FORM or index + 12 > filled:
                    break
                length, start = length_at(data, index + 8)[0], index + 12
                if length >= deep and vr == b"SQ":
                    break
            end = start + length
            if end > whole or length == UNDEFINED or not 0 < group < FIRST_DELIMITER or group == PIXEL_GROUP:
                break
            tag = group << 16 | element
            if tag in wanted:
                if length > wanted[tag] or end > filled or tag in values:
                    break
                values[tag] = vr, data[start:end]
            index = end
            self._left -= 1
        return self._base + index

    def _note(self, tag: int, vr: bytes, start: int, end: int, undefined: bool) -> None:
        if tag in self._found.values or tag in self._found.pixels:
            raise Refused(f"{name(tag)} comes twice")
        if self._found.pixels and tag >> 16 < PIXEL_GROUP:
            raise Refused(f"{name(tag)} comes after the pixels")
        if tag in self._wanted:
            if end - start > self._wanted[tag]:
                raise Refused(f"{name(tag)} has {end - start} bytes, and {self._wanted[tag]} at most are read")
            self._found.values[tag] = vr, self.between(start, end)
        elif tag in PIXEL_TAGS:
            self._found.pixels[tag] = Place(start, end - start, undefined, self._items if undefined else 0)

    def between(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``, out of the window where it has them."""
        first, last = start - self._base, end - self._base
        if first >= 0 and last <= len(self._data):
            return self._data[first:last]
        return self._exactly(start, end - start)

    def _first_header(self) -> _ReadHeader:
        if self._size >= 8:
            self._move(0)
            # A length whose lower half looks like a VR would be over 16,000, which no first element has.
            if _is_vr(self._data[4:6]) != self._encoding.explicit:
                raise self._misnamed(0)
        return self._explicit if self._encoding.explicit else self._implicit

    def _past(self, tag: int, vr: bytes, at: int, header: _ReadHeader) -> int:
        """The position after the delimiter that ends a value of undefined length, which starts ``at``."""
        stack: _Stack = [(self._inside(tag, vr), self._reader(vr, header))]
        self._items = 0
        while stack:
            if self._size - at < 8:
                raise Refused(f"{name(tag)} has no delimiter before the end of the data set")
            inside, header = stack[-1]
            inner, vr, start, length = header(at)
            self._left -= 1
            if inner >= DELIMITERS:
                self._items += inner == ITEM and len(stack) == 1
                at = _past_delimiter(stack, inner, start, length)
            elif inside is not _Inside.ITEM:
                raise Refused(f"{name(inner)} is out of place in {name(tag)}")
            elif length == UNDEFINED and len(stack) >= 2 * self._limits.depth:  # each level is a sequence and an item
                raise Refused(f"{name(tag)} nests more than {self._limits.depth} deep")
            elif length == UNDEFINED:
                stack.append((self._inside(inner, vr), self._reader(vr, header)))
                at = start
            else:
                if length >= self._deep_bytes // 2:
                    self._enter((inner, vr, start, length), header, len(stack) // 2 + 1)
                at = start + length
            if at > self._size or self._left < 0:
                raise self._wrong_end(inner, start, length)
        return at

    def _enter(self, element: _Header, header: _ReadHeader, level: int) -> None:
        """See that a sequence that has a length, if it is one, does not nest too deeply."""
        tag, vr, start, length = element
        most = self._limits.depth
        if not self._is_sequence(vr, start, length) or start + length > self._size or length < room(level, most):
            return

        def counted(at: int) -> _Header:
            self._left -= 1
            if self._left < 0:
                raise self._wrong_end(tag, start, length)
            return header(at)

        try:
            deeper = nests_deeper(counted, self._is_sequence, (start, start + length), level, most)
        except Refused:  # broken inside, where nobody has to look
            deeper = False
        if deeper:
            raise Refused(f"{name(tag)} nests more than {most} deep")

    def _is_sequence(self, vr: bytes, start: int, length: int) -> bool:
        return vr == b"SQ" or (not vr and length >= 8 and self.between(start, start + 4) == ITEM_HEADER)

    def _inside(self, tag: int, vr: bytes) -> _Inside:
        if tag == PIXEL_DATA or vr in OTHER:
            return _Inside.FRAGMENTS
        if vr in (b"", b"SQ", b"UN"):
            return _Inside.SEQUENCE
        raise Refused(f"{name(tag)} has no length, which only sequences and encapsulated pixels may lack")

    def _reader(self, vr: bytes, header: _ReadHeader) -> _ReadHeader:
        # PS3.5 Section 6.2.2: whoever passed on what they did not know wrote it in implicit VR little endian.
        return self._implicit if vr == b"UN" else header

    def _explicit(self, at: int) -> _Header:
        """The header of an element with VR (PS3.5 Section 7.1.2), or of an item or delimiter, which has none (7.5)."""
        if at > self._last:
            self._move(at)
        index = at - self._base
        group, element, vr, length = self._explicit_header(self._data, index)
        tag = group << 16 | element
        if group == DELIMITERS >> 16:
            return tag, b"", at + 8, self._length(self._data, index + 4)[0]
        if vr in SHORT_FORM:
            return tag, vr, at + 8, length
        if not _is_vr(vr):
            raise self._misnamed(at)
        if index + 12 > len(self._data):
            raise Refused(f"the data set ends in the middle of the length of {name(tag)}")
        return tag, vr, at + 12, self._length(self._data, index + 8)[0]

    def _implicit(self, at: int) -> _Header:
        """An element header without VR (PS3.5 Section 7.1.3); there is only the little endian kind."""
        if at > self._last:
            self._move(at)
        group, element, length = self._implicit_header(self._data, at - self._base)
        return group << 16 | element, b"", at + 8, length

    def _move(self, at: int) -> None:
        jumped = at > self._base + len(self._data)
        count = min(LANDING_BYTES if jumped else WINDOW_BYTES, self._size - at)
        self._data, self._base = self._exactly(at, count), at
        end = at + count
        self._last = end - (8 if end == self._size else 12)

    def _exactly(self, offset: int, count: int) -> bytes:
        data = self._read_at(offset, count) if count else b""
        if len(data) != count:
            raise Refused(f"the data set ends before its {self._size} bytes")
        return data

    def _misnamed(self, at: int) -> Refused:
        return Refused(f"the data set is not encoded as its transfer syntax says ({self._encoding.name}, byte {at})")

    def _wrong_end(self, tag: int, start: int, length: int) -> Refused:
        if self._left < 0:
            return Refused(f"the data set has more than {self._limits.elements} elements")
        return Refused(f"{name(tag)} runs past the end: it has {length} bytes, and {self._size - start} are left")


def _past_delimiter(stack: _Stack, tag: int, start: int, length: int) -> int:
    """The position after an item's header, its value where its length is known, or the end of what is open."""
    inside, header = stack[-1]
    if tag == ITEM and inside is not _Inside.ITEM:
        if length != UNDEFINED:
            return start + length
        if inside is _Inside.SEQUENCE:
            stack.append((_Inside.ITEM, header))
            return start
    elif tag == (ITEM_END if inside is _Inside.ITEM else SEQUENCE_END) and length == 0:
        stack.pop()
        return start
    raise Refused(f"{name(tag)} is out of place (byte {start - 8})")


def _is_vr(letters: bytes) -> bool:
    return letters.isalpha() and letters.isupper()
