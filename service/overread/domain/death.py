"""The evidence that is left when a model's process dies."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("crash", "timeout", "memory", "disk", "device")


@dataclass(frozen=True)
class Death:
    """How one process of a model ended.

    ``kind`` is crash, timeout (it was ended at its time), memory (it took too much, or the system ran out of it), disk
    (it wrote too much) or device (a GPU error, after which no process can go on). ``signal`` is its name, such as
    SIGSEGV, or empty.
    ``peak_bytes`` is the most memory that it was seen to hold; ``said`` the last it wrote, without patient data.
    """

    kind: str
    signal: str = ""
    exit_code: int | None = None
    peak_bytes: int = 0
    said: str = ""

    def __str__(self) -> str:
        if self.signal:
            how = f"ended by {self.signal}"
        else:
            how = "ended" if self.exit_code is None else f"ended with exit code {self.exit_code}"
        short = {"memory": " (memory)", "disk": " (disk)"}
        why = {**short, "timeout": " at its time", "device": " after an error of its device"}
        peak = f", {self.peak_bytes / 2**20:.0f} MB at most" if self.peak_bytes else ""
        return f"{how}{why.get(self.kind, '')}{peak}"
