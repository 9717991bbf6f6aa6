"""Landlock by system calls: the files that this process may still reach (Linux, landlock(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446  # the same numbers on every architecture
READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, read a folder
WRITE = 1 << 1 | sum(1 << bit for bit in range(4, 13))  # write, remove, make
REFER, TRUNCATE = 1 << 13, 1 << 14
OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | TRUNCATE  # what can be said of a single file
BIND_CONNECT = 0b11  # TCP
SCOPES = 0b11  # abstract Unix sockets and signals to processes outside


def restrict(readable: Iterable[str], writable: Iterable[str]) -> int:
    """From now on only what lies below ``readable`` can be read, and below ``writable`` be written; no TCP.

    Returns the version of Landlock's interface. Raises OSError where there is none, or it is switched off.
    """
    version = _call(CREATE, None, 0, 1)
    writing = WRITE | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    fields = [READ | writing, BIND_CONNECT if version >= 4 else 0, SCOPES if version >= 6 else 0]
    attributes = struct.pack(f"{len(fields)}Q", *fields)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _call(CREATE, attributes, len(attributes), 0)
    try:
        for path in dict.fromkeys(readable):
            _allow(rules, path, READ)
        for path in dict.fromkeys(writable):
            _allow(rules, path, READ | writing)
        _call(RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return version


def _allow(rules: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        folder = os.path.isdir(path)  # noqa: PTH112  # pathlib is not imported this early
        rule = struct.pack("=Qi", access if folder else access & OF_FILES, place)
        _call(ADD, rules, 1, rule, 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    answer = int(libc.syscall(ctypes.c_long(number), *given))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
