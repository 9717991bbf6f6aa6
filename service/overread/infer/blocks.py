"""Memory that two processes share: files without a name, which nobody else can open.

They are handed over as open descriptors (memfd_create(2)), and are gone when the last who has one is.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

MFD_NOEXEC_SEAL = 0x8  # Linux 6.3; some systems refuse a block without it
SIZE_STAYS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def empty() -> int:
    """A block that grows as it is written to; returns its descriptor."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("overread", flags | MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("overread", flags)


def written(data: bytes) -> int:
    """A block that holds ``data``, to be read from its beginning."""
    block = empty()
    write(block, memoryview(data), 0)
    os.lseek(block, 0, os.SEEK_SET)
    return block


def shared(voxels: NDArray[Any]) -> int:
    """A block that holds an array, and keeps its size."""
    block = empty()
    write(block, np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data, 0)
    fcntl.fcntl(block, fcntl.F_ADD_SEALS, SIZE_STAYS)
    return block


def mapped(block: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """The array in a block, which it shares with whoever else has it; the descriptor may be closed."""
    return np.ndarray(shape, dtype, mmap.mmap(block, 0))


def write(block: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` (bytes) at ``offset``."""
    done = 0
    while done < len(data):
        done += os.pwrite(block, data[done:], offset + done)


def read(block: int, into: memoryview, offset: int) -> None:
    """Fill ``into`` (bytes) from ``offset``; raises EOFError where the block ends earlier.

    It is read, not mapped: whoever has the block could make it smaller, which kills those that look at a mapping.
    """
    done = 0
    while done < len(into):
        count = os.preadv(block, [into[done:]], offset + done)
        if not count:
            raise EOFError("the block ends before the array")
        done += count


def held_bytes(block: int) -> int:
    """How much memory a block takes."""
    return os.fstat(block).st_blocks * 512
