"""The keeper's eyes on a worker process: the memory it and all that it has started hold, and the last that it wrote."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from overread.domain.death import Death
from overread.infer import family
from overread.infer.discreet import discreet
from overread.infer.evidence import helpful

KEPT = 32768  # a crash may list all of some hundred modules
FAMILY_S = 0.5  # how often its children are looked at, which takes a look at all processes of the machine
VMSTAT = Path("/proc/vmstat")


class Witness:
    """Watches one process until it has ended. ``guard`` is its parent, below which all is that it starts; ``shared``
    tells how much its blocks hold that are mapped nowhere."""

    def __init__(self, pid: int, guard: int, said: int, shared: Callable[[], int] = lambda: 0) -> None:
        self._pid, self._guard, self._shared = pid, guard, shared
        self._status, self._forget = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/clear_refs")
        self._said: deque[bytes] = deque(maxlen=KEPT // 16)
        self._family_bytes, self._looked_at = 0, 0.0
        self._oom_kills = oom_kills()
        self.resident_bytes = self.peak_bytes = 0
        self._listener = threading.Thread(target=self._listen, args=(said,), name=f"said-{pid}", daemon=True)
        self._listener.start()

    def look(self) -> int:
        """How many bytes the family holds; what cannot be read, for the process is gone, stays as it was seen last."""
        if time.monotonic() - self._looked_at > FAMILY_S:
            others, self._looked_at = self.children(), time.monotonic()
            self._family_bytes = family.held_bytes([self._pid, *others]) if others else 0
        with suppress(OSError, ValueError, KeyError):  # of one that has ended nothing is said
            found = dict(line.split(":", 1) for line in self._status.read_text().splitlines() if line.startswith("Vm"))
            self.resident_bytes = max(_bytes(found["VmRSS"]), self._family_bytes) + self._shared()
            self.peak_bytes = max(self.peak_bytes, self.resident_bytes, _bytes(found["VmHWM"]))
        return self.resident_bytes

    def children(self) -> list[int]:
        """All that it has started and that still run, those included whose parents have ended."""
        return [pid for pid in family.descendants(self._guard) if pid != self._pid]

    def begin(self) -> None:
        """A new reading begins: its peak is its own, and what was said before is no evidence of it."""
        with suppress(OSError):
            self._forget.write_text("5")  # VmHWM counts anew (proc(5))
        self.peak_bytes, self._oom_kills = 0, oom_kills()
        self._said.clear()
        self.look()

    def killed_for_memory(self) -> bool:
        """Whether the system has killed since then because memory was short; whom, it does not say."""
        return oom_kills() != self._oom_kills

    def death(self, kind: str, code: int | None, sources: Sequence[str]) -> Death:
        """The evidence, once the process has ended with ``code``; ``sources`` are the files that it was about."""
        self._listener.join(1.0)
        name = _signal(-code) if code is not None and code < 0 else ""
        return Death(kind, name, code if code is not None and code >= 0 else None, self.peak_bytes, self.said(sources))

    def said(self, sources: Sequence[str]) -> str:
        """What it wrote last, as far as it helps, without what may name the patient."""
        text = b"".join(self._said).decode("utf-8", "replace")
        return discreet(helpful(text), [Path(source) for source in sources])

    def _listen(self, said: int) -> None:
        with open(said, "rb", buffering=0) as written:
            while True:
                with suppress(InterruptedError):
                    piece = written.read(4096)
                    if not piece:
                        return
                    # In small pieces, so that what is forgotten is the oldest and not the whole.
                    self._said.extend(piece[at : at + 16] for at in range(0, len(piece), 16))


def oom_kills() -> int:
    """How many processes the system has killed so far because memory was short; 0 where it does not tell."""
    with suppress(OSError, ValueError):
        lines = (line.split() for line in VMSTAT.read_text().splitlines())
        return next((int(value) for name, value in lines if name == "oom_kill"), 0)
    return 0


def _bytes(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
