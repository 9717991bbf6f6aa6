"""The body of a request as it comes: so many bytes, or chunks (RFC 9112 Sections 6 and 7)."""

from __future__ import annotations

import re
from typing import Protocol

from overread.receive.stow.wire import TooSlow, Wire

RAW_BYTES = 64 << 10
LONGEST_LINE = 1 << 10
MOST_TRAILER_BYTES = 16 << 10
SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")


class CutOff(Exception):
    """The body ends before its end: the connection broke, or chunks are not what they must be."""


class TooMuch(Exception):
    """The request is larger than it may be; the message says what it may be."""


class Body(Protocol):
    """``complete`` once every byte of the body has been read and more cannot come."""

    complete: bool

    def read_into(self, room: memoryview) -> int:
        """Some of it; how many bytes, 0 only at its end. Raises CutOff, TooMuch, TooSlow."""

    def give_back(self) -> None:
        """Return to the wire what belongs to the next request."""


class Counted:
    """A body of ``length`` bytes (Content-Length)."""

    def __init__(self, wire: Wire, length: int) -> None:
        self._wire, self._left = wire, length
        self.complete = length == 0

    def read_into(self, room: memoryview) -> int:
        """As ``Body`` says."""
        if self.complete:
            return 0
        count = self._wire.receive_into(room[: min(len(room), self._left)])
        if not count:
            raise CutOff("the connection broke before the end of the body")
        self._left -= count
        self.complete = not self._left
        return count

    def give_back(self) -> None:
        """Nothing: it never reads further than its end."""


class Chunked:
    """A body in chunks, of ``most_bytes`` at most. Extensions and trailers are skipped."""

    def __init__(self, wire: Wire, most_bytes: int) -> None:
        self._wire, self._whole, self._most = wire, most_bytes, most_bytes
        self._raw = bytearray(RAW_BYTES)
        self._start = self._end = 0
        self._left = 0
        self._inside = False  # a chunk's bytes were read, the line end after it was not
        self._fault: Exception | None = None  # told once all that came before it has been handed out
        self.complete = False

    def read_into(self, room: memoryview) -> int:
        """As ``Body`` says. Goes on over small chunks while there is something at hand."""
        if self._fault:
            raise self._fault
        filled = 0
        while filled < len(room) and not self.complete:
            if filled and self._start == self._end:
                break
            if self._left:
                count = self._take(room[filled : filled + self._left])
                filled, self._left = filled + count, self._left - count
                continue
            try:
                self._next_chunk()
            except (CutOff, TooMuch, TooSlow) as error:
                self._fault = error
                if not filled:
                    raise
                break
        return filled

    def give_back(self) -> None:
        """Return to the wire what was read of the next request."""
        self._wire.hold(bytes(memoryview(self._raw)[self._start : self._end]))
        self._start = self._end = 0

    def _take(self, room: memoryview) -> int:
        if self._start == self._end and len(room) >= RAW_BYTES // 2:
            if not (count := self._wire.receive_into(room)):  # straight to where it shall be
                raise CutOff("the connection broke within a chunk")
            return count
        if self._start == self._end:
            self._fill()
        count = min(len(room), self._end - self._start)
        room[:count] = memoryview(self._raw)[self._start : self._start + count]
        self._start += count
        return count

    def _next_chunk(self) -> None:
        if self._inside and self._line():
            raise CutOff("a chunk is longer than it says")
        self._inside = True
        size = SIZE.fullmatch(self._line())
        if size is None:
            raise CutOff("a chunk does not begin with its size")
        self._left = int(size[1], 16)
        self._most -= self._left
        if self._most < 0:
            raise TooMuch(f"a request may have {self._whole} bytes; send fewer instances in one")
        if not self._left:
            self._skip_trailers()
            self.complete = True

    def _skip_trailers(self) -> None:
        left = MOST_TRAILER_BYTES
        while line := self._line():
            left -= len(line)
            if left < 0:
                raise CutOff("the trailer of the body does not end")

    def _line(self) -> bytes:
        while (at := self._raw.find(b"\r\n", self._start, self._end)) < 0:
            if self._end - self._start > LONGEST_LINE:
                raise CutOff("a chunk's size has no end")
            self._fill()
        line = bytes(memoryview(self._raw)[self._start : at])
        self._start = at + 2
        return line

    def _fill(self) -> None:
        waiting = self._end - self._start
        self._raw[:waiting] = self._raw[self._start : self._end]
        self._start, self._end = 0, waiting
        count = self._wire.receive_into(memoryview(self._raw)[waiting:])
        if not count:
            raise CutOff("the connection broke between two chunks")
        self._end += count
