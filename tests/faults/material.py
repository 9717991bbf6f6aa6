"""What the faults send, and how they look at what arrived: generated instances, the spool's documented layout."""

from __future__ import annotations

import os
import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from wire import CT, WORD_FRAMES, padded

CI = os.environ.get("CI") == "true"


def tool(name: str) -> str:
    """The path of a program; skips without it, fails when CI=true."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        (pytest.fail if CI else pytest.skip)(f"{name} is not installed")
    return str(found)


# --- instances -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """One generated instance: its UIDs and its encoded data set (Explicit VR Little Endian)."""

    uid: str
    study: str
    data: bytes


def new_uid(rng: random.Random) -> str:
    """A UID that nobody else has."""
    return f"2.25.{rng.getrandbits(100) | 1 << 99}"


def element(tag: int, vr: str, value: bytes | str | int) -> bytes:
    """One element of an explicit little endian data set."""
    raw = struct.pack("<H", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    raw += (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return head + (struct.pack("<HL", 0, len(raw)) if vr in ("OW", "OB", "SQ") else struct.pack("<H", len(raw))) + raw


def header(uid: str, study: str, series: str, rows: int, columns: int, *, frames: int = 0) -> bytes:
    """All of an image but its pixels: CT, or a word secondary capture of ``frames`` frames."""
    return b"".join(
        (
            element(0x00080016, "UI", padded(WORD_FRAMES if frames else CT)),
            element(0x00080018, "UI", padded(uid)),
            element(0x00080060, "CS", "OT" if frames else "CT"),
            element(0x00100010, "PN", "Fault^Test"),
            element(0x0020000D, "UI", padded(study)),
            element(0x0020000E, "UI", padded(series)),
            element(0x00200013, "IS", "1"),
            element(0x00280002, "US", 1),
            element(0x00280004, "CS", "MONOCHROME2"),
            element(0x00280008, "IS", str(frames)) if frames else b"",
            element(0x00280010, "US", rows),
            element(0x00280011, "US", columns),
            element(0x00280100, "US", 16),
            element(0x00280101, "US", 16),
            element(0x00280102, "US", 15),
            element(0x00280103, "US", 0),
        )
    )


def make(rng: random.Random, size_bytes: int = 8192, study: str = "") -> Made:
    """A CT image of about ``size_bytes`` random bytes of pixels, in ``study`` or in one of its own."""
    uid, study = new_uid(rng), study or new_uid(rng)
    columns = max(1, min(1024, size_bytes // 16))
    rows = max(1, size_bytes // 2 // columns)
    pixels = element(0x7FE00010, "OW", rng.randbytes(2 * rows * columns))
    return Made(uid, study, header(uid, study, f"{study}.1", rows, columns) + pixels)


# --- the spool -------------------------------------------------------------------------------------------------------


def stored_files(spool: Path) -> list[Path]:
    """Every file under a final name."""
    return [p for p in (spool / "instances").rglob("*") if p.is_file()]


def split_file(path: Path) -> tuple[bytes, bytes]:
    """Preamble with file meta information, and the data set, of a Part 10 file."""
    raw = path.read_bytes()
    assert raw[128:132] == b"DICM", f"{path} is no Part 10 file ({len(raw)} bytes)"
    start = 144 + int.from_bytes(raw[140:144], "little")
    return raw[:start], raw[start:]


def kept(spool: Path) -> dict[str, list[bytes]]:
    """SOP Instance UID as the file meta information has it → the data sets stored for it."""
    found: dict[str, list[bytes]] = {}
    for path in stored_files(spool):
        meta, data = split_file(path)
        found.setdefault(meta_value(meta, 0x0003), []).append(data)
    return found


def meta_value(meta: bytes, wanted: int) -> str:
    """A UID of group 2 in the file meta information."""
    offset = 132
    while offset < len(meta):
        _, number, vr, length = struct.unpack_from("<HH2sH", meta, offset)
        offset += 8
        if vr in (b"OB", b"UN"):
            (length,) = struct.unpack_from("<L", meta, offset)
            offset += 4
        if number == wanted:
            return meta[offset : offset + length].rstrip(b"\0 ").decode()
        offset += length
    raise AssertionError(f"no (0002,{wanted:04X})")


def require_kept(spool: Path, acknowledged: dict[str, bytes]) -> None:
    """Everything acknowledged is in the spool, byte for byte."""
    there = kept(spool)
    missing = acknowledged.keys() - there.keys()
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged instances are not in the spool"
    changed = [uid for uid, data in acknowledged.items() if data not in there[uid]]
    assert not changed, f"{len(changed)} of {len(acknowledged)} acknowledged instances have other bytes in the spool"
