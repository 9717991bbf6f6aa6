"""One measurement: a fresh receiver, one transfer, what it cost, and whether every byte is there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingest_parts import process_tree
from ingest_parts.data import Load
from ingest_parts.part10 import read_head
from ingest_parts.receivers import Receiver, ReceiverFailed, Running, started
from ingest_parts.sender import SENDERS, Transfer

SETTLE_S = 10.0
TOUCHED_BYTES = 1_200_000_000
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000


@dataclass(frozen=True)
class Cell:
    """What is compared with each other: one load, from one kind of sender, over so many associations."""

    load: Load
    associations: int
    sender: str


@dataclass(frozen=True)
class Measurement:
    """One transfer into one receiver. ``harm`` says in words what is lost or changed, ``trouble`` why it failed."""

    receiver: str
    load: str
    associations: int
    sender: str
    instances: int
    size_bytes: int
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    identical: int = 0
    indexed: int | None = None
    harm: str = ""
    trouble: str = ""

    @property
    def rate(self) -> float:
        """Instances a second."""
        return self.instances / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """The receiver's CPU time for one instance."""
        return 1000 * self.cpu_s / self.instances


def measure(receiver: Receiver, cell: Cell, folder: Path) -> Measurement:
    """Start the receiver in ``folder``, which must not exist and is removed; send; compare what it kept."""
    about = (receiver.name, cell.load.name, cell.associations, cell.sender, len(cell.load.files), cell.load.size_bytes)
    if reason := receiver.missing():
        return Measurement(*about, trouble=reason)
    try:
        with started(receiver, folder, cell.associations) as running:
            transfer, cost = _transfer(running, cell)
        identical, harm = compare(folder / receiver.storage, cell.load, cost.indexed)
    except ReceiverFailed as error:
        return Measurement(*about, trouble=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    p50, p99 = (percentile_ms(transfer.latencies_s, part) for part in (0.50, 0.99))
    return Measurement(
        *about, transfer.wall_s, cost.cpu_s, cost.peak_mb, p50, p99, identical, cost.indexed, harm, transfer.trouble
    )


@dataclass(frozen=True)
class _Cost:
    cpu_s: float
    peak_mb: float
    indexed: int | None


def _transfer(running: Running, cell: Cell) -> tuple[Transfer, _Cost]:
    shards = cell.load.shards(cell.associations)
    memory = process_tree.PeakMemory(running.pid)
    _calm()
    memory.start()
    before_s = process_tree.cpu_s(running.pid)
    transfer = SENDERS[cell.sender](running.port, running.receiver.ae_title, shards)
    process_tree.wait_still(running.pid, SETTLE_S, lambda: running.indexed() in (None, len(cell.load.files)))
    cpu_s = process_tree.cpu_s(running.pid) - before_s
    return transfer, _Cost(cpu_s, memory.stop(), running.indexed())


def compare(folder: Path, load: Load, indexed: int | None) -> tuple[int, str]:
    """How many instances lie under ``folder`` byte for byte, and in words what does not."""
    kept: dict[str, bool] = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if head := read_head(content):
            same = hashlib.sha256(memoryview(content)[head.start :]).hexdigest() == load.digests.get(head.sop_instance)
            # One identical file is enough: Orthanc, for one, may keep the header a second time.
            kept[head.sop_instance] = same or kept.get(head.sop_instance, False)
    count = len(load.digests)
    identical, lost = sum(kept.get(uid, False) for uid in load.digests), count - len(kept.keys() & load.digests.keys())
    harm = [f"lost {lost} of {count}"] if lost else []
    if changed := count - lost - identical:
        harm.append(f"{changed} of {count} not byte-identical")
    if indexed is not None and indexed != count:
        harm.append(f"the ledger lists {indexed} of {count}")
    return identical, ", ".join(harm)


def percentile_ms(latencies_s: Sequence[float], part: float) -> float | None:
    """The latency that this part of the instances does not exceed; None for a sender that does not measure it."""
    if not latencies_s:
        return None
    return 1000 * sorted(latencies_s)[min(len(latencies_s) - 1, int(part * len(latencies_s)))]


def spread_folders(folder: Path) -> None:
    """Ask ext4 to place each folder made in this one apart, by a hash of its name (as ``chattr +T``).

    Otherwise a receiver's new files lie where the last one's were just deleted, and finding inodes there costs ext4 as
    much as receiving. Other file systems have no such flag, nor need of it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        flags = struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_TOPDIR_FL))
    os.close(descriptor)


def _calm() -> None:
    # A virtual machine's memory costs its host a fault at first touch, and another's unwritten files cost the disk:
    # neither shall fall to the receiver.
    touched = b"\1" * TOUCHED_BYTES
    del touched
    os.sync()
