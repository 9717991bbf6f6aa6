"""Free pages of the C heap go back to the system.

A network's layers leave blocks of many sizes, and the heap keeps each in the hope of another of its size: reading one
CT grows a process by more than half a gigabyte that nothing uses. glibc gives free pages back when it is told to.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give back what is free; does nothing where the C library has no ``malloc_trim(3)``."""
    if trim is not None:
        trim(0)


trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
