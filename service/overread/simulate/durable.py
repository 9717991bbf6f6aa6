"""A file that is there completely or not at all, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_durable(content: bytes, target: Path) -> None:
    """Write ``content`` under another name, sync it, rename it to ``target`` and sync the folders. Raises OSError."""
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
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
