"""0x0000 means stored, whole and readable: for every kind of bad data set it is given 0 times; to what scanners send,
always."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_data import CONTEXTS, KINDS, Bad
from house import Service
from material import kept, require_kept
from pydicom import dcmread
from wire import CT, Gone, Wire

TIMES = 12
Make = Callable[..., Service]

# What lacks a Study Instance UID is no instance: two data sets without any UID, and two test images.
NO_INSTANCES = {"chrSQEncoding.dcm", "chrSQEncoding1.dcm", "HTJ2K_08_RGB.dcm", "HTJ2KLossless_08_RGB.dcm"}
MOST_CONTEXTS = 100


@pytest.fixture
def listener(service: Make) -> Service:
    return service(role="listen").start()


def test_no_kind_of_bad_data_set_is_ever_acknowledged(listener: Service) -> None:
    """Each is answered on an association that goes on; nothing of them is in the spool but in quarantine."""
    answers: Counter[tuple[str, int]] = Counter()
    with Wire(listener.port) as wire:
        wire.associate(CONTEXTS)
        for kind in KINDS:
            for number in range(TIMES):
                bad: Bad = kind(random.Random(f"{kind.__name__} {number}"))
                status = wire.store(bad.uid, bad.data, (CONTEXTS[0][0], bad.syntax))
                answers[kind.__name__, status] += 1
        wire.release()
    assert not {kind for kind, status in answers if status == 0x0000}, answers
    assert {status for _, status in answers} <= {0x0117, 0xA900, 0xC000}, answers
    spool = listener.data / "spool"
    assert not kept(spool)
    assert not list((spool / "incoming").iterdir())
    escaped = [p for p in listener.data.parent.rglob("*PWNED*")] + [p for p in Path("/tmp").glob("*PWNED*")]
    assert not escaped


def files(root: Path, *, malformed: bool) -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if ("malformed" in str(path.relative_to(root))) != malformed:
            continue
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        content = archive.extractfile(member)
                        yield member.name, content.read() if content else b""
        else:
            yield path.name, path.read_bytes()


def parts(content: bytes) -> tuple[str, str, str, bytes] | None:
    """SOP Class UID, SOP Instance UID, transfer syntax and data set, as a sender takes them from a file: the UIDs of
    the data set where that can be read, else of the file meta information. None when there is no transfer syntax."""
    meta, start = _file_meta(content)
    if 0x0010 not in meta:
        return None
    data = content[start:]
    told = [meta.get(0x0002, ""), meta.get(0x0003, "")]
    with contextlib.suppress(Exception):  # whatever pydicom has to say of it
        read = dcmread(io.BytesIO(content), specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
        told = [str(read.get("SOPClassUID") or told[0]), str(read.get("SOPInstanceUID") or told[1])]
    return told[0] or CT, told[1] or "none", meta[0x0010], data


def _file_meta(content: bytes) -> tuple[dict[int, str], int]:
    """Element → value of group 2, and where the data set begins (PS3.10 Section 7.1)."""
    found, at = {}, 132
    while content[128:132] == b"DICM" and content[at : at + 2] == b"\2\0" and len(content) > at + 12:
        number, vr, length = struct.unpack_from("<H2sH", content, at + 2)
        at += 8
        if vr in (b"OB", b"UN"):
            length, at = struct.unpack_from("<L", content, at)[0], at + 4
        found[number] = content[at : at + length].rstrip(b"\0 ").decode("latin-1")
        at += length
    return found, at


class Sender:
    """Sends files over as many associations as there are many presentation contexts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._wires: dict[tuple[str, str], Wire] = {}

    def send(self, sop_class: str, uid: str, syntax: str, data: bytes) -> int:
        """The status; -1 when the context is not accepted, -2 when the association ended without an answer."""
        context = (sop_class, syntax)
        if context not in self._wires:
            self._wires[context] = Wire(self.port)
            with contextlib.suppress(Gone):  # a context without a name is refused with the whole association
                self._wires[context].associate([context])
        wire = self._wires[context]
        if context not in wire.accepted:
            return -1
        try:
            return wire.store(uid, data, context)
        except (Gone, OSError):
            self._wires.pop(context).close()
            return -2

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()


@pytest.fixture
def sender(service: Make) -> Iterator[tuple[Service, Sender]]:
    row = {"ae_title": "*", "network": "127.0.0.0/8", "max_associations": MOST_CONTEXTS}
    many: dict[str, Any] = {"max_associations": MOST_CONTEXTS, "allow": [row]}
    running = service(role="listen", receive=many).start()
    sending = Sender(running.port)
    yield running, sending
    sending.close()


@pytest.mark.filterwarnings("ignore")
def test_what_scanners_send_is_never_refused(data: Path, sender: tuple[Service, Sender]) -> None:
    """All real files that others made, but those that are malformed on purpose."""
    running, sending = sender
    refused, stored = {}, {}
    for name, content in files(data, malformed=False):
        found = parts(content)
        if found is None:
            continue
        sop_class, uid, syntax, dataset = found
        status = sending.send(sop_class, uid, syntax, dataset)
        if status == 0x0000:
            stored[uid] = dataset
        elif status != -1 and name.rpartition("/")[2] not in NO_INSTANCES:
            refused[name] = hex(status)
    assert not refused
    assert len(stored) > 900
    require_kept(running.data / "spool", stored)


@pytest.mark.filterwarnings("ignore")
def test_malformed_files_are_stored_refused_or_quarantined_and_none_is_lost(
    data: Path, sender: tuple[Service, Sender]
) -> None:
    running, sending = sender
    answers: Counter[int] = Counter()
    stored, set_aside = {}, 0
    for _, content in files(data, malformed=True):
        found = parts(content)
        if found is None:
            continue
        sop_class, uid, syntax, dataset = found
        status = sending.send(sop_class, uid, syntax, dataset)
        answers[status] += 1
        set_aside += status == 0xC000
        if status == 0x0000:
            stored[uid] = dataset
    assert answers[-2] == 0, answers
    assert sum(answers.values()) > 250
    require_kept(running.data / "spool", stored)
    assert len(list((running.data / "spool" / "quarantine").glob("*.dcm"))) == set_aside
    with Wire(running.port) as wire:
        assert wire.associate().echo() == 0
