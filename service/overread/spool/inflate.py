"""Deflated data sets (PS3.5 Section A.5): inflated once, into a file without a name, and read there."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overread.domain.errors import Refused
from overread.spool.elements import ReadAt
from overread.spool.limits import LIMITS, Limits

PACKED_BYTES = 64 << 10
PIECE_BYTES = 1 << 20
# A small object may be one constant image; a large one that grows like that is no image.
ANY_RATIO_BYTES = 16 << 20
# What may follow the stream: a zero that makes the length even, and before it the checksum and the length with which a
# gzip file ends, which some writers leave in place.
MOST_TRAILING_BYTES = 1 + 8


@contextmanager
def inflated(
    read_at: ReadAt, size_bytes: int, scratch: Path | None, limits: Limits = LIMITS
) -> Iterator[tuple[ReadAt, int]]:
    """How to read the inflated data set, and its size; it lies in ``scratch``, or where temporary files do.

    Raises Refused when the stream is damaged, cut off, followed by more than a trailer, or inflates absurdly; OSError
    when the disk does not take it.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        size = 0
        for piece in _pieces(read_at, size_bytes, limits):
            size += file.write(piece)
        file.flush()
        descriptor = file.fileno()
        yield (lambda offset, count: os.pread(descriptor, count, offset)), size


def _pieces(read_at: ReadAt, size_bytes: int, limits: Limits) -> Iterator[bytes]:
    most = min(limits.inflated_bytes, max(ANY_RATIO_BYTES, limits.inflated_ratio * size_bytes))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    at = made = 0
    while not stream.eof:
        packed = stream.unconsumed_tail
        if not packed:
            packed = read_at(at, PACKED_BYTES)
            at += len(packed)
        piece = _piece(stream, packed)
        made += len(piece)
        if made > most:
            raise Refused(f"the deflated data set inflates to more than {most} bytes")
        yield piece
    if len(stream.unused_data) + size_bytes - at > MOST_TRAILING_BYTES:
        raise Refused("the deflated data set goes on after its stream has ended")


def _piece(stream: zlib._Decompress, packed: bytes) -> bytes:
    try:
        piece = stream.decompress(packed, PIECE_BYTES)
    except zlib.error as error:
        raise Refused("the deflated data set is damaged") from error
    if not packed and not piece and not stream.eof:
        raise Refused("the deflated data set ends before its stream has ended")
    return piece
