"""What lies in quarantine, in plain words and without a patient's data, and the way back from there."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from overread.domain.errors import Refused, Stumbled
from overread.ledger import Ledger, arrivals
from overread.ledger.arrivals import Arrival
from overread.spool import Spool
from overread.spool.quarantine import Entry, Quarantine, judge

_UID, _WORD, _NUMBER = r"[0-9.]{1,64}", r"[A-Z0-9_ ]{1,16}", r"[0-9]{1,10}"
# What may be told, and what it must look like: in a broken file anything may stand anywhere, a name among it.
TOLD = {
    "SOPClassUID": _UID,
    "SOPInstanceUID": _UID,
    "StudyInstanceUID": _UID,
    "SeriesInstanceUID": _UID,
    "Modality": _WORD,
    "Rows": _NUMBER,
    "Columns": _NUMBER,
    "NumberOfFrames": _NUMBER,
    "SamplesPerPixel": _NUMBER,
    "PhotometricInterpretation": _WORD,
    "BitsAllocated": _NUMBER,
}


def overview(quarantine: Quarantine) -> Iterator[str]:
    """One line an entry, what came first first."""
    empty = True
    for entry in quarantine.entries():
        empty = False
        f = entry.facts
        who = f"{_moment(f.at)}  {_or_dash(f.calling_ae):<16}"
        yield f"{entry.id}  {who}  {_size(f.size_bytes)}  {_status(entry)}  {f.reason}"
    if empty:
        yield "nothing is in quarantine"


def details(entry: Entry) -> Iterator[str]:
    """All that is known of one entry, what can be read of its header, and what to do with it."""
    f = entry.facts
    yield f"{entry.id}: {f.reason}"
    yield f"  came             {_moment(f.at)} from {_or_dash(f.calling_ae)}, {f.size_bytes} bytes"
    yield f"  answered         {_status(entry)}"
    yield f"  file             {entry.file}"
    yield f"  SOPClassUID      {_named(f.sop_class_uid)}, as the command said"
    yield f"  SOPInstanceUID   {_or_dash(f.sop_instance_uid)}, as the command said"
    yield f"  transfer syntax  {_named(f.transfer_syntax_uid)}"
    yield "  its header, as far as it can be read, without the patient's data:"
    for line in _header(entry.file):
        yield f"    {line}"
    yield from _remedy(entry)


def release(entry: Entry, quarantine: Quarantine, spool: Spool, ledger: Ledger) -> str:
    """Take an entry in as if it had come now, and drop it from quarantine; returns what was taken.

    Raises Refused with the reason when it is still none that can be taken, Stumbled when the disk does not take it; it
    stays in quarantine then. Interrupted, it can be released again: nothing is taken twice.
    """
    try:
        instance = judge(entry)
    except Refused as error:
        raise Refused(f"it stays in quarantine: {error}") from error
    _require_owner(spool.root)
    try:
        stored = spool.adopt(entry.file, instance)
    except OSError as error:
        raise Stumbled(f"it stays in quarantine: the spool does not take it ({error.strerror})") from error
    known = replace(instance, path=stored.path, digest=stored.digest)
    arrivals.record(ledger, [Arrival(known, stored.size_bytes, time.time())])
    quarantine.drop(entry.id)
    return f"instance {known.sop_instance_uid} of study {known.study_uid}"


def one_line(entry: Entry) -> str:
    """What an entry is, for the person who has just dropped it."""
    f = entry.facts
    return f"{f.size_bytes} bytes from {_or_dash(f.calling_ae)} of {_moment(f.at)}: {f.reason}"


def _require_owner(root: Path) -> None:
    # A folder that another user makes in the spool would be closed to the listener: it could not store there.
    owner = root.stat().st_uid
    if owner != os.geteuid():
        raise Refused(f"the spool belongs to user {owner}: run this as that user (sudo -u '#{owner}' overread …)")


def _remedy(entry: Entry) -> Iterator[str]:
    drop = f"overread quarantine drop {entry.id} removes it for good"
    try:
        judge(entry)
    except Refused as error:
        sender = _or_dash(entry.facts.calling_ae)
        yield f"  Today it could not be taken either: {error}."
        yield f"  Show it to whoever looks after {sender}: the sender was told that it was not taken, and must send it"
        yield f"  again once it is mended. {drop}."
        return
    yield f"  Today it can be taken: overread quarantine release {entry.id} takes it in as if it had come now."
    yield f"  {drop}."


def _header(file: Path) -> list[str]:
    """What a tolerant read finds, or why it finds nothing."""
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote values
            syntax = UID(str(read_file_meta_info(file).TransferSyntaxUID))
            if syntax == DeflatedExplicitVRLittleEndian:
                return ["it is deflated, and not inflated here"]
            found = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(TOLD))
            return [_told(found, keyword, looks) for keyword, looks in TOLD.items()]
    except Exception as error:
        # The edge to whatever a stranger sent: pydicom raises a dozen kinds of errors on broken data.
        return [f"it cannot be read ({type(error).__name__})"]


def _told(header: Any, keyword: str, looks: str) -> str:
    label = f"{keyword:<26}"
    if keyword not in header:
        return f"{label}is not there"
    try:
        value = "" if header[keyword].value is None else str(header[keyword].value)
    except Exception as error:  # the same edge: a value is decoded only when it is asked for
        return f"{label}cannot be read ({type(error).__name__})"
    if not value:
        return f"{label}is empty"
    if not re.fullmatch(looks, value):
        return f"{label}is there, with a value that it cannot have"
    return f"{label}{_named(value) if keyword == 'SOPClassUID' else value}"


def _status(entry: Entry) -> str:
    return "-     " if entry.facts_lost else f"0x{entry.facts.status:04X}"


def _named(uid: str) -> str:
    name = str(UID(uid).name)
    return f"{uid} ({name})" if name != uid else _or_dash(uid)


def _or_dash(text: str) -> str:
    return text or "-"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1024:>9.1f} KB" if size_bytes < 1 << 20 else f"{size_bytes / (1 << 20):>9.1f} MB"


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # the facts may be damaged
        return "at an unknown time  "
