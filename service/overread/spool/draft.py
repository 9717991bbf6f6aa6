"""One instance on its way to the disk: written as it comes, then kept, set aside or dropped."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import xxhash

from overread.spool.durable import sync_data, write_parts

_numbers = itertools.count(1)


class Draft:
    """A file in ``incoming/`` that grows by fragments; ``size_bytes`` and ``digest`` are those of the data set alone.

    Not safe to share between threads. Every method that touches the disk raises OSError.
    """

    def __init__(self, folder: str, meta: bytes, *, durable: bool) -> None:
        self._name = f"{folder}/{os.getpid()}-{next(_numbers)}"
        self.size_bytes = 0
        self._meta = meta
        self._meta_bytes = len(meta)
        self._durable = durable
        self._hash = xxhash.xxh3_128()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(self._name, flags, 0o640)

    @property
    def path(self) -> Path:
        """Where it lies for now."""
        return Path(self._name)

    @property
    def digest(self) -> str:
        """XXH3-128 of the data set so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append to the data set; the preamble and file meta information go out with the first pieces."""
        for piece in pieces:
            self._hash.update(piece)
            self.size_bytes += len(piece)
        if self._meta:
            pieces, self._meta = (self._meta, *pieces), b""
        if pieces:
            write_parts(self._descriptor, pieces)

    def read_at(self, offset: int, count: int) -> bytes:
        """``count`` bytes of the data set from ``offset``; fewer only at its end."""
        return os.pread(self._descriptor, count, self._meta_bytes + offset)

    def seal(self) -> None:
        """Make the bytes durable, and close; the name is not durable yet.

        A sync that failed is not tried again on the same file: the kernel may have dropped the pages that it could not
        write, and would report success the second time.
        """
        self.write()
        if self._durable:
            sync_data(self._descriptor)
        self._close()

    def move(self, target: str) -> None:
        """Give the sealed file its final name, in the place of what had it."""
        os.rename(self._name, target)  # noqa: PTH104 — strings here: paths cost as much as the rename

    def discard(self) -> None:
        """Leave nothing behind; harmless after ``seal`` and when the file has been moved away."""
        self._close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name)  # noqa: PTH108

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
