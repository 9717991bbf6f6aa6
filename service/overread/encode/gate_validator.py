"""dciodvfy, David Clunie's validator, has the last word where it is installed.

It reads neither deflated objects nor thousands of frames in a reasonable time, so it is given an excerpt: the header's
own bytes and the first frames. What it says of patient and study attributes is said of the source, which results carry
verbatim; and values are taken out of what it says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain.errors import Misplaced
from overread.encode import explicit
from overread.encode.part10 import Part10Writer
from overread.encode.reread import FLOAT_PIXELS, FRAME_GROUPS, PIXELS, items, readable, reread
from overread.encode.sources import IDENTITY, REQUEST

PROGRAM = "dciodvfy"
MOST_FRAMES = 8
LONGEST_S = 30.0

_UNKNOWN = "Information Object Not found"  # a SOP Class that is younger than this edition of the program
_NOTHING = (
    "contains invalid data values",  # said of the whole file
    "Laterality",  # whether it is needed hangs on the source's BodyPartExamined
    "Illegal root for UID",  # of the source's: ours begin with 2.25
    "Shall not be present for Referenced SOP Class that is not segmentation",  # of a label map, by older editions
)


def check(path: Path) -> None:
    """Raise Misplaced with its first error about what overread wrote; nothing where it is not installed."""
    program = shutil.which(PROGRAM)
    if program is None:
        return
    with tempfile.TemporaryDirectory(prefix="overread-") as folder:
        excerpt = Path(folder) / "excerpt.dcm"
        _excerpt(path, excerpt)
        try:
            done = subprocess.run([program, str(excerpt)], capture_output=True, check=False, timeout=LONGEST_S)
        except (OSError, subprocess.TimeoutExpired):
            return
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if _UNKNOWN in said:
        return
    for line in said.splitlines():
        if line.startswith("Error") and not _is_of_the_source(line):
            raise Misplaced(f"{PROGRAM}: {re.sub(r'= *<[^>]*>', '', line).strip()}")


def _excerpt(path: Path, target: Path) -> None:
    with reread(path) as found:
        planes = list(islice(found.frames, MOST_FRAMES))
        header = readable(found.head)
        for keyword in (*IDENTITY, *REQUEST):
            if keyword in header and header[keyword].VR == "SQ":
                del header[keyword]  # what the source nests would be told of without saying where it stands
        native = ExplicitVRLittleEndian
        meta = FileMetaDataset()
        meta.update(found.meta)
        meta.TransferSyntaxUID = native
        if "NumberOfFrames" in header:
            header.NumberOfFrames = len(planes)
        with Part10Writer(target, meta) as out:
            out.write(explicit.encoded(header[:FRAME_GROUPS]))
            if found.groups:
                kept = list(islice(items(found.groups, 0, len(found.groups)), len(planes)))
                out.write(explicit.sequence(FRAME_GROUPS, found.groups[: kept[-1][1]]))
            out.write(explicit.encoded(header[FRAME_GROUPS + 1 :]))
            if planes:
                width = header.Columns * header.get("SamplesPerPixel", 1)
                pixels = np.zeros((len(planes), header.Rows, width), planes[0].pixels.dtype)
                for plane, (first, rows) in zip(pixels, planes, strict=True):
                    plane[first : first + len(rows)] = rows
                data = np.packbits(pixels, bitorder="little") if header.BitsAllocated == 1 else pixels
                raw = data.tobytes()
                tag, vr = (FLOAT_PIXELS, b"OF") if data.dtype.kind == "f" else (PIXELS, b"OB")
                vr = b"OW" if data.dtype.itemsize == 2 else vr
                out.write(explicit.start(tag, vr, len(raw) + len(raw) % 2) + raw + bytes(len(raw) % 2))


def _is_of_the_source(line: str) -> bool:
    return any(words in line for words in _NOTHING) or any(name in line for name in _names())


def _names() -> list[str]:
    """How different editions call an attribute: by keyword and path, by tag, by name."""
    found = []
    for keyword in (*IDENTITY, *REQUEST):
        tag = tag_for_keyword(keyword)
        if tag is not None:
            found += [f"</{keyword}(", f"(0x{tag >> 16:04x},0x{tag & 0xFFFF:04x})", f"<{dictionary_description(tag)}>"]
            found += [f"Element=<{keyword}>"]
    return found
