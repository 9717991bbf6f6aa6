"""The keeper's eyes on a worker process: the memory it holds, and the last that it wrote."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from overread.domain.death import Death
from overread.infer.discreet import discreet

KEPT = 8192
TOLD = 1500


class Witness:
    """Watches one process until it has ended."""

    def __init__(self, pid: int, said: Connection) -> None:
        self._status, self._forget = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/clear_refs")
        self._said: deque[bytes] = deque(maxlen=KEPT // 16)
        self.resident_bytes = self.peak_bytes = 0
        self._listener = threading.Thread(target=self._listen, args=(said,), name=f"said-{pid}", daemon=True)
        self._listener.start()

    def look(self) -> int:
        """How many bytes it holds now; what cannot be read, for the process is gone, stays as it was seen last."""
        with suppress(OSError, ValueError, KeyError):  # of one that has ended nothing is said
            found = dict(line.split(":", 1) for line in self._status.read_text().splitlines() if line.startswith("Vm"))
            self.resident_bytes = _bytes(found["VmRSS"])
            self.peak_bytes = max(self.peak_bytes, _bytes(found["VmHWM"]))
        return self.resident_bytes

    def begin(self) -> None:
        """A new reading begins: its peak is its own, and what was said before is no evidence of it."""
        with suppress(OSError):
            self._forget.write_text("5")  # VmHWM counts anew (proc(5))
        self.peak_bytes = 0
        self._said.clear()
        self.look()

    def death(self, kind: str, code: int | None, sources: Sequence[str]) -> Death:
        """The evidence, once the process has ended with ``code``; ``sources`` are the files that it was about."""
        self._listener.join(1.0)
        name = _signal(-code) if code is not None and code < 0 else ""
        text = b"".join(self._said).decode("utf-8", "replace")
        said = discreet(text, [Path(source) for source in sources])[-TOLD:]
        return Death(kind, name, code if code is not None and code >= 0 else None, self.peak_bytes, said)

    def _listen(self, said: Connection) -> None:
        with said:
            while True:
                with suppress(InterruptedError):
                    piece = os.read(said.fileno(), 4096)
                    if not piece:
                        return
                    # In small pieces, so that what is forgotten is the oldest and not the whole.
                    self._said.extend(piece[at : at + 16] for at in range(0, len(piece), 16))


def _bytes(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
