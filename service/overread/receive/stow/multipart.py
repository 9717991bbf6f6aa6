"""multipart/related as it comes (RFC 2046 Section 5.1, RFC 2387): one part after the other, through one window.

Lenient where senders are known to err and nothing can be mistaken for it: text before the first boundary, blanks after
one, a part without headers, an empty one. A line that only begins like a boundary is content. The closing boundary may
be missing: ``terminated`` then says of the last part that nothing but the end of the body ends it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

WINDOW_BYTES = 128 << 10
ENOUGH_BYTES = 32 << 10
MOST_PREAMBLE_BYTES = 64 << 10
MOST_PADDING = 128
LINE = b"\r\n"
# More than RFC 2046 allows: none of these can be mistaken, and there are senders that use them.
BOUNDARY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")


class NotMultipart(Exception):
    """The body does not hold what its Content-Type says."""


@dataclass(frozen=True)
class Part:
    """Header fields by their names in lower case; ``fault`` says what is wrong with them, if anything."""

    fields: Mapping[str, str]
    fault: str = ""


class _Follows(enum.Enum):
    """What stands after the letters of a boundary."""

    PART = enum.auto()
    END = enum.auto()
    CONTENT = enum.auto()
    UNKNOWN = enum.auto()


class Multipart:
    """Parts of the body that ``read_into`` reads; it gives 0 at the end, and what it raises passes through.

    Ask for ``next_part``, read all of its ``pieces``, look at ``terminated``, and so on.
    """

    def __init__(self, read_into: Callable[[memoryview], int], boundary: str, most_header_bytes: int) -> None:
        self._read_into = read_into
        self._delimiter = LINE + b"--" + boundary.encode("ascii")
        self._most_header_bytes = most_header_bytes
        self._buffer = bytearray(max(WINDOW_BYTES, 2 * most_header_bytes))
        self._view = memoryview(self._buffer)
        # As if a line had ended before the body: the first boundary needs none before it.
        self._buffer[:2] = LINE
        self._start, self._scanned, self._end = 0, 0, 2
        self._over = self._begun = False
        self.closed = False  # the closing boundary was seen
        self.terminated = False  # a boundary stands after the part that was read

    def next_part(self) -> Part | None:
        """The next part, None after the last. Raises NotMultipart when there is no first."""
        if not self._begun:
            self._begun = True
            self._skip_preamble()
        if self.closed or not self.terminated:
            return None
        self.terminated = False
        return self._headers()

    def pieces(self) -> Iterator[memoryview]:
        """The content of the part, each piece valid until the next is asked for."""
        while self._end - self._start < len(self._delimiter) and self._fill():
            continue
        # The line end after the headers may also be that before the boundary: of a part without content.
        if not self._buffer.startswith(self._delimiter, self._start, self._end):
            self._start = min(self._start + 2, self._end)
        yield from self._until_delimiter()

    def _skip_preamble(self) -> None:
        skipped = 0
        for piece in self._until_delimiter():
            skipped += len(piece)
            if skipped > MOST_PREAMBLE_BYTES:
                raise NotMultipart(f"no boundary within the first {MOST_PREAMBLE_BYTES} bytes of the body")
        if not self.terminated:
            raise NotMultipart("the boundary that the Content-Type names is not in the body")

    def _headers(self) -> Part:
        # From the line end after the boundary to the first blank line.
        while (at := self._buffer.find(LINE + LINE, self._start, self._end)) < 0:
            if self._end - self._start > self._most_header_bytes:
                break
            if not self._fill():
                self._start = self._end
                return Part({}, "the body ends within a part's headers")
        if at < 0 or at - self._start > self._most_header_bytes:
            return Part({}, f"a part's headers are longer than {self._most_header_bytes} bytes")
        text = bytes(self._view[self._start + 2 : at]).decode("latin-1") if at > self._start else ""
        self._start = at + 2
        return _part(text)

    def _until_delimiter(self) -> Iterator[memoryview]:
        """What stands before the next boundary; leaves ``_start`` at the line end behind it."""
        self._scanned = self._start
        while True:
            follows = self._scan()
            if follows in (_Follows.PART, _Follows.END):
                break
            if self._scanned - self._start >= ENOUGH_BYTES:
                yield self._view[self._start : self._scanned]
                self._start = self._scanned
            if not self._fill():
                yield from self._rest()
                return
        if self._scanned > self._start:
            yield self._view[self._start : self._scanned]
        self._start = self._line_end
        self.terminated, self.closed = True, follows is _Follows.END

    def _scan(self) -> _Follows:
        """Look for a boundary in the window; up to ``_scanned`` there is none."""
        while (at := self._buffer.find(self._delimiter, self._scanned, self._end)) >= 0:
            follows = self._what_follows(at + len(self._delimiter))
            self._scanned = at
            if follows is not _Follows.CONTENT:
                return follows
            self._scanned += len(LINE)
        self._scanned = max(self._scanned, self._end - len(self._delimiter) + 1)
        return _Follows.UNKNOWN

    def _what_follows(self, at: int) -> _Follows:
        if self._buffer.startswith(b"--", at, self._end):
            self._line_end = at
            return _Follows.END
        most = min(self._end, at + MOST_PADDING)
        padded = at
        while padded < most and self._buffer[padded] in b" \t":
            padded += 1
        if self._buffer.startswith(LINE, padded, self._end):
            self._line_end = padded
            return _Follows.PART
        left = bytes(self._view[padded : self._end])
        undecided = padded < at + MOST_PADDING and (left in (b"", b"\r") or (left == b"-" and padded == at))
        return _Follows.UNKNOWN if undecided else _Follows.CONTENT

    def _rest(self) -> Iterator[memoryview]:
        """What the end of the body ends, without the beginning of a boundary that may have been cut off there."""
        last = self._end
        whole = self._buffer.find(self._delimiter, self._scanned, self._end)
        if whole >= 0:
            last = whole
        else:
            for length in range(min(len(self._delimiter) - 1, self._end - self._start), 1, -1):
                if self._buffer.endswith(self._delimiter[:length], self._start, self._end):
                    last = self._end - length
                    break
        if last > self._start:
            yield self._view[self._start : last]
        self._start = self._end

    def _fill(self) -> bool:
        """Read once; False at the end of the body."""
        if self._over:
            return False
        if self._end == len(self._buffer):
            waiting = self._end - self._start
            self._buffer[:waiting] = self._buffer[self._start : self._end]
            self._scanned = max(0, self._scanned - self._start)
            self._start, self._end = 0, waiting
        count = self._read_into(self._view[self._end :])
        self._end += count
        self._over = count == 0
        return not self._over


def _part(text: str) -> Part:
    fields: dict[str, str] = {}
    last = ""
    for line in text.split("\r\n") if text else ():
        if line[:1] in (" ", "\t") and last:  # a field that goes on (RFC 5322 Section 2.2.3)
            fields[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            return Part({}, "a part's headers are not header fields")
        last = name.strip().lower()
        fields.setdefault(last, value.strip())
    return Part(fields)
