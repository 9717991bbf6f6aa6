"""What goes wrong at the simulated PACS, on request: which fault, on which occasions, from when and for how long."""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from overread.domain.errors import ConfigError

CHECK_S = 0.02


class Mishap(StrEnum):
    """Each is one thing that PACS have been seen to do. ``seconds`` 0 means until the fault is taken back."""

    REFUSE = "refuse"  # an association is rejected (transient, local limit exceeded); HTTP 503
    DOWN = "down"  # nothing listens; an HTTP request is cut off
    STALL_ACCEPTED = "stall-after-accept"  # accepts the association, then is silent for ``seconds``
    STALL_TRANSFER = "stall-mid-transfer"  # stops reading in the midst of an object, for ``seconds``
    STALL_RESPONSE = "stall-before-response"  # keeps the object and does not answer for ``seconds``
    ABORT_ACCEPTED = "abort-after-accept"
    ABORT_TRANSFER = "abort-mid-transfer"
    ABORT_RESPONSE = "abort-before-response"  # keeps the object and aborts instead of answering
    ANSWER = "answer"  # answers ``status``; only a success or a warning keeps the object
    LOSE = "lose"  # says success and keeps nothing
    DISK_FULL = "disk-full"  # 0xA700, and keeps nothing
    SLOW = "slow"  # ``seconds`` for each PDU that comes, or for each HTTP request
    STALL_QUERY = "stall-at-query"  # C-FIND, QIDO-RS and WADO-RS wait for ``seconds``
    NO_QUERIES = "no-queries"  # C-FIND fails (0xC001), QIDO-RS and WADO-RS answer 503
    COMMIT_LATE = "commit-late"  # storage commitment is answered ``seconds`` later
    COMMIT_NEVER = "commit-never"  # it is taken, and never answered
    COMMIT_REFUSE = "commit-refuse"  # the request itself is answered with ``status`` (0: 0x0110)
    COMMIT_DENY = "commit-deny"  # every object is reported as not held (0x0112)


@dataclass(frozen=True)
class Fault:
    """One fault. It strikes at every ``every``-th occasion after the first ``spare``, ``times`` times (0: without end),
    from ``after_s`` seconds after it was asked for until ``for_s`` seconds later (0: without end)."""

    kind: Mishap
    status: int = 0
    seconds: float = 0.0
    every: int = 1
    spare: int = 0
    times: int = 0
    after_s: float = 0.0
    for_s: float = 0.0


@dataclass
class _Running:
    fault: Fault
    since: float
    seen: int = 0
    struck: int = 0

    def is_active(self, now: float) -> bool:
        begins = self.since + self.fault.after_s
        ended = self.fault.for_s > 0 and now >= begins + self.fault.for_s
        return begins <= now and not ended and not (self.fault.times and self.struck >= self.fault.times)

    def strikes(self, now: float) -> bool:
        if not self.is_active(now):
            return False
        self.seen += 1
        strikes = self.seen > self.fault.spare and (self.seen - self.fault.spare) % self.fault.every == 0
        self.struck += strikes
        return strikes


class Mischief:
    """The faults that were asked for; safe to use from several threads."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._running: list[_Running] = []
        self._generation = 0
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """From now on these, too."""
        now = time.monotonic()
        with self._lock:
            self._running += [_Running(fault, now) for fault in faults]

    def clear(self) -> None:
        """Behave; what was stalling goes on at once."""
        with self._lock:
            self._running = []
            self._generation += 1

    def told(self) -> list[dict[str, Any]]:
        """Each fault with the occasions that it ``seen``, and how often it ``struck``."""
        with self._lock:
            return [{**asdict(r.fault), "seen": r.seen, "struck": r.struck} for r in self._running]

    def strikes(self, kind: Mishap) -> Fault | None:
        """An occasion for ``kind``: the fault that strikes now, if any."""
        now = time.monotonic()
        with self._lock:
            struck = [r.fault for r in self._running if r.fault.kind is kind and r.strikes(now)]
        return struck[0] if struck else None

    def is_on(self, kind: Mishap) -> bool:
        """Whether a lasting fault, such as being down, lasts now."""
        now = time.monotonic()
        with self._lock:
            return any(r.fault.kind is kind and r.is_active(now) for r in self._running)

    def stall(self, fault: Fault) -> None:
        """Wait as long as the fault says, or until everything is taken back."""
        generation, ends = self._generation, time.monotonic() + (fault.seconds or float("inf"))
        while self._generation == generation and time.monotonic() < ends:
            time.sleep(min(CHECK_S, max(0.0, ends - time.monotonic())))


def read_script(path: Path) -> list[Fault]:
    """The ``[[fault]]`` tables of a TOML file. Raises ConfigError when it cannot be read or names no fault."""
    try:
        script = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a script of faults: {error}") from None
    if set(script) - {"fault"} or not isinstance(script.get("fault", []), list):
        raise ConfigError(f"{path}: a script has tables [[fault]] and nothing else")
    return [fault_of(values, str(path)) for values in script.get("fault", [])]


def fault_of(values: Mapping[str, Any], source: str) -> Fault:
    """A fault from its fields; ``status`` may be a text such as ``"0xA700"``. Raises ConfigError for what is none."""
    known = {f.name: f for f in fields(Fault)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{source}: a fault has no {unknown[0]!r}; it has {', '.join(known)}")
    try:
        kind = Mishap(values.get("kind", ""))
    except ValueError:
        kinds = ", ".join(Mishap)
        raise ConfigError(f"{source}: kind is {values.get('kind', '')!r}; it can be {kinds}") from None
    try:
        numbers = {k: _number(k, v) for k, v in values.items() if k != "kind"}
    except (ValueError, TypeError):
        raise ConfigError(f"{source}: the fields of a fault are numbers, from 0 up; every is at least 1") from None
    return Fault(kind, **numbers)


def _number(key: str, value: Any) -> Any:
    if isinstance(value, str):
        value = int(value, 0)
    number = float(value) if key.endswith("s") and key not in ("status", "times") else int(value)
    if number < (1 if key == "every" else 0) or (key == "status" and number > 0xFFFF):
        raise ValueError(key)
    return number
