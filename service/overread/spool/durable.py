"""What makes a write survive a power cut: a synced file under a temporary name, a rename, a synced folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path


def write_durable(content: bytes, target: Path) -> None:
    """Write ``content`` to ``target`` so that it is there completely or not at all. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    for folder in (target.parent, target.parent.parent):
        sync_folder(folder)


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all of ``parts``, one after the other, however many calls it takes. Raises OSError."""
    for part in parts:
        written = os.write(descriptor, part)
        while written < len(part):
            written += os.write(descriptor, part[written:])


def sync_data(descriptor: int) -> None:
    """Make a file's bytes and length durable, as cheaply as the platform can. Raises OSError."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(descriptor)


def sync_folder(folder: str | Path) -> None:
    """Make the names in ``folder`` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
