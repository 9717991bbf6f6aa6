"""Where the pixels of a stored file lie, and how to get at them without parsing more than is asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from overread.domain.errors import Refused
from overread.spool.elements import PIXEL_DATA, SEQUENCE_BYTES, TEXT_BYTES, Place, ReadAt, scan
from overread.spool.header import DEFLATED, TAGS, Header, encoding_of, file_meta, plain

SAMPLES_PER_PIXEL = TAGS["SamplesPerPixel"]
# Its tag, VR and length, by transfer syntax.
FIRST_OF_PIXELS = {
    "1.2.840.10008.1.2.1": b"\x28\0\x02\0US\x02\0",
    "1.2.840.10008.1.2": b"\x28\0\x02\0\x02\0\0\0",
}
HEAD_BYTES = 16 << 10
# Tens of thousands of frames with all that vendors write about each.
GROUPS_BYTES = 512 << 20


@dataclass(frozen=True)
class Opened:
    """An open Part 10 file: the values that were asked for, and where its pixels lie.

    ``pixels`` maps the tags of pixel data to their places; ``read_at`` reads the data set, inflated if it was deflated.
    ``descriptor`` and ``start`` lead to the same bytes in the file itself; ``descriptor`` is −1 where they do not.
    """

    header: Header
    pixels: Mapping[int, Place]
    read_at: ReadAt
    descriptor: int
    start: int

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` with the data set's bytes from ``offset``; returns how many there were."""
        if self.descriptor >= 0:
            return os.preadv(self.descriptor, [buffer], self.start + offset)
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def opened(path: Path | str, keywords: Collection[str], *, scratch: Path | None = None) -> Iterator[Opened]:
    """Open a file of the spool and read the values of ``keywords``, which ``spool.header`` must know.

    Raises OSError when it is gone, Refused when it is not, or no longer, a readable data set.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start, syntax, *_ = file_meta(descriptor, path)
        size = max(os.fstat(descriptor).st_size - start, 0)
        found = _pixels_only(descriptor, start, size, syntax, keywords)
        if found is not None:
            yield found
            return
        with plain(_reader(descriptor, start), size, syntax, scratch) as (read_at, size_bytes):
            header, pixels = _scanned(read_at, size_bytes, syntax, keywords)
            yield Opened(header, pixels, read_at, -1 if syntax in DEFLATED else descriptor, start)
    finally:
        os.close(descriptor)


def _pixels_only(
    descriptor: int, start: int, size: int, syntax: str, keywords: Collection[str]
) -> Opened | None:
    """The same from the description of the pixels on, for keywords that come no earlier; None where that is not sure.

    Walking over who, when and where is most of the work, and was done when the file came. The description begins with
    SamplesPerPixel, which is there whenever pixels are (PS3.3 C.7.6.3): found once before them, it is the right one.
    """
    pattern = FIRST_OF_PIXELS.get(syntax)
    if pattern is None or _least(frozenset(keywords)) < SAMPLES_PER_PIXEL:
        return None
    head = os.pread(descriptor, HEAD_BYTES, start)
    first = head.find(pattern)
    if first < 0:
        return None

    def read_at(offset: int, count: int) -> bytes:
        end = first + offset + count
        return head[first + offset : end] if end <= len(head) else os.pread(descriptor, count, start + first + offset)

    try:
        header, places = _scanned(read_at, size - first, syntax, keywords)
    except Refused:
        return None
    pixels = places.get(PIXEL_DATA)
    if pixels is None or head.find(pattern, first + 1, first + pixels.offset) >= 0 or first + pixels.offset > len(head):
        return None
    return Opened(header, places, read_at, descriptor, start + first)


def _scanned(
    read_at: ReadAt, size_bytes: int, syntax: str, keywords: Collection[str]
) -> tuple[Header, Mapping[int, Place]]:
    try:
        found = scan(read_at, size_bytes, encoding_of(syntax), _wanted(frozenset(keywords)))
    except (ArithmeticError, LookupError, ValueError, struct.error) as error:
        # The edge to bytes that may have rotted since they were judged.
        raise Refused(f"the data set cannot be read ({type(error).__name__})") from error
    return Header(found.values, encoding_of(syntax), syntax), found.pixels


def _reader(descriptor: int, start: int) -> ReadAt:
    return lambda offset, count: os.pread(descriptor, count, start + offset)


@lru_cache(maxsize=16)
def _least(keywords: frozenset[str]) -> int:
    return min(TAGS[k] for k in keywords)


@lru_cache(maxsize=16)
def _wanted(keywords: frozenset[str]) -> dict[int, int]:
    most: dict[str, Any] = {"FunctionalGroupsSequence": GROUPS_BYTES, "Sequence": SEQUENCE_BYTES, "": TEXT_BYTES}
    return {TAGS[k]: next(size for ending, size in most.items() if k.endswith(ending)) for k in keywords}
