"""How long a peer waits: for an association, for a C-ECHO, and beside others that push.

    python tests/bench/latency.py

For each receiver: association set-up (one and 128 presentation contexts), C-ECHO on a quiet receiver and while four
associations push CT images without pause, how much a big transfer slows down while small ones come and go, and what
twenty idle associations cost.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ingest_parts import process_tree
from ingest_parts.blast import MOST_PDU_BYTES, Peer, store_request
from ingest_parts.data import make_load
from ingest_parts.measure import spread_folders
from ingest_parts.part10 import read_head
from ingest_parts.receivers import RECEIVERS, Receiver, Running, started

VERIFICATION, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
TIMES = 100
# DCMTK's storescp serves one association at a time and Orthanc four: nobody can ask them anything beside four others.
ASKED = ("overread", "stock-layer")
MANY = [(VERIFICATION, IMPLICIT)] + [(f"1.2.840.10008.5.1.4.1.1.{n}", IMPLICIT) for n in range(1, 128)]
COLUMNS = ("receiver", "set-up, 1 context", "128 contexts", "C-ECHO, quiet", "4 push: median", "p99", "beside small",
           "20 idle")  # fmt: skip


def main() -> int:
    """Print one table, times in ms."""
    with tempfile.TemporaryDirectory(prefix="overread-latency-", dir="/var/tmp", ignore_cleanup_errors=True) as made:
        folder = Path(made).resolve()
        spread_folders(folder)
        load = make_load("CT", folder / "loads" / "CT", 60)
        rows = [COLUMNS]
        for number, receiver in enumerate(r for r in RECEIVERS if r.key in ASKED):
            print(receiver.name, file=sys.stderr, flush=True)
            if reason := receiver.missing():
                rows.append((receiver.name, reason, *[""] * 6))
                continue
            with started(receiver, folder / f"receiver-{number}", 8) as running:
                rows.append(_row(receiver, running, list(load.files)))
    for row in rows:
        print("  ".join(cell.rjust(18) if n else cell.ljust(30) for n, cell in enumerate(row)))
    return 0


def _row(receiver: Receiver, running: Running, files: list[Path]) -> tuple[str, ...]:
    def dial(contexts: list[tuple[str, str]] = MANY[:1]) -> Peer:
        return Peer("127.0.0.1", running.port, receiver.ae_title, contexts)

    quiet = _echoes(dial)
    pushed = _while_pushing(running, receiver, files, lambda: _echoes(dial))
    alone = _pushed_per_s(running, receiver, files, lambda: time.sleep(2))
    beside = _pushed_per_s(running, receiver, files, lambda: _small_ones(dial, 2.0))
    return (
        receiver.name,
        f"{_median(_set_ups(dial, MANY[:1])):.2f}",
        f"{_median(_set_ups(dial, MANY)):.2f}",
        f"{_median(quiet):.2f}",
        f"{_median(pushed):.2f}",
        f"{1000 * sorted(pushed)[int(len(pushed) * 0.99)]:.2f}",
        f"{beside / alone:.0%}" if alone else "–",
        f"{_idle_share(running, dial):.1%} of a core",
    )


def _median(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


def _set_ups(dial: Callable[..., Peer], contexts: list[tuple[str, str]]) -> list[float]:
    found = []
    for _ in range(30):
        before = time.monotonic()
        peer = dial(contexts)
        found.append(time.monotonic() - before)
        peer.release()
    return found


def _echoes(dial: Callable[[], Peer]) -> list[float]:
    command = struct.pack("<HHLL", 0, 0, 4, len(_echo_elements())) + _echo_elements()
    request = struct.pack(">BxLLBB", 4, len(command) + 6, len(command) + 2, 1, 3) + command
    peer, found = dial(), []
    for _ in range(TIMES):
        before = time.monotonic()
        peer.socket.sendall(request)
        peer.status()
        found.append(time.monotonic() - before)
    peer.release()
    return found


def _echo_elements() -> bytes:
    uid = VERIFICATION.encode() + b"\0"
    numbers = ((0x100, 0x30), (0x110, 1), (0x800, 0x101))
    return struct.pack("<HHL", 0, 2, len(uid)) + uid + b"".join(struct.pack("<HHLH", 0, e, 2, v) for e, v in numbers)


class _Pusher(threading.Thread):
    """Sends the same images again and again in a process-wide thread; counts them."""

    def __init__(self, running: Running, receiver: Receiver, files: list[Path]) -> None:
        super().__init__(daemon=True)
        contents = [path.read_bytes() for path in files]
        heads = [head for content in contents if (head := read_head(content))]
        contexts = [(heads[0].sop_class, heads[0].transfer_syntax)]
        self._peer = Peer("127.0.0.1", running.port, receiver.ae_title, contexts)
        pdu = min(self._peer.pdu_bytes, MOST_PDU_BYTES)
        self._requests = [store_request(h, c, 1, 1, pdu) for h, c in zip(heads, contents, strict=True)]
        self.sent, self.go_on = 0, True

    def run(self) -> None:
        with suppress(OSError):
            while self.go_on:
                self._peer.socket.sendall(self._requests[self.sent % len(self._requests)])
                self._peer.status()
                self.sent += 1
            self._peer.release()


def _while_pushing(
    running: Running, receiver: Receiver, files: list[Path], ask: Callable[[], list[float]]
) -> list[float]:
    pushers = [_Pusher(running, receiver, files[n * 15 : n * 15 + 15]) for n in range(4)]
    for pusher in pushers:
        pusher.start()
    time.sleep(0.3)
    found = ask()
    for pusher in pushers:
        pusher.go_on = False
    for pusher in pushers:
        pusher.join(10)
    return found


def _pushed_per_s(running: Running, receiver: Receiver, files: list[Path], meanwhile: Callable[[], object]) -> float:
    pusher = _Pusher(running, receiver, files)
    pusher.start()
    before, sent = time.monotonic(), pusher.sent
    meanwhile()
    rate = (pusher.sent - sent) / (time.monotonic() - before)
    pusher.go_on = False
    pusher.join(10)
    return rate


def _small_ones(dial: Callable[[], Peer], for_s: float) -> None:
    """Somebody who opens an association every 50 ms, asks, and goes."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        peer = dial()
        peer.release()
        time.sleep(0.05)


def _idle_share(running: Running, dial: Callable[[], Peer]) -> float:
    peers = [dial() for _ in range(20)]
    before, at = process_tree.cpu_s(running.pid), time.monotonic()
    time.sleep(3)
    share = (process_tree.cpu_s(running.pid) - before) / (time.monotonic() - at)
    for peer in peers:
        peer.release()
    return share


if __name__ == "__main__":
    subprocess.run(["sync"], check=False)
    sys.exit(main())
