"""When a study is whole, when a model reads it, how long it stays, and who watches."""

from __future__ import annotations

from dataclasses import dataclass, field

from overread.domain.card_ranges import DEVICE, DEVICES
from overread.domain.errors import ConfigError
from overread.settings.limits import at_least, choice, within

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Assemble:
    """A study is asked whether it is complete after ``quiet_s`` without a new instance, per modality if named."""

    quiet_s: float = 30.0
    quiet_by_modality_s: dict[str, float] = field(default_factory=lambda: {"CT": 30.0, "MR": 120.0, "US": 300.0})


@dataclass(frozen=True)
class Schedule:
    """``slots`` jobs at once, each under a lease that a dead worker cannot renew; ``device`` is auto, cpu or cuda:N.

    ``express`` keeps a further place for STAT jobs: auto where an AE title is STAT, on or off. ``memory_gb`` is what
    all models together may hold (0: 80 % of the machine's); ``confine`` is available, required or off.
    """

    slots: int = 1
    lease_s: float = 30.0
    device: str = "auto"
    cpu_threads: int = 0
    keep_warm: int = 2
    retry_s: float = 10.0
    longest_wait_s: float = 3600.0
    express: str = "auto"
    memory_gb: float = 0.0
    confine: str = "available"
    executor: str = "local"
    ray_address: str = "auto"
    ray_gpus: float = 0.0


@dataclass(frozen=True)
class Observe:
    """Metrics and health over HTTP, one port for each role; ``log`` is json or text."""

    host: str = "127.0.0.1"
    listen_port: int = 9601
    watch_port: int = 9602
    work_port: int = 9603
    log: str = "json"
    level: str = "INFO"


@dataclass(frozen=True)
class Canary:
    """Every ``every_min`` minutes (0: never) a marked study goes through the whole service to the destinations that are
    for it. It must be proven there within ``deadline_min``. ``study``: a folder of DICOM files to be sent under UIDs of
    its own; empty sends a generated chest CT."""

    every_min: float = 0.0
    deadline_min: float = 15.0
    study: str = ""


@dataclass(frozen=True)
class Retain:
    """How long the spool keeps the images and results of studies whose every job has ended.

    They go earlier, the oldest first, when all of them take more than ``max_gb`` (0: no limit) or when less than
    ``min_free_mb`` of the disk is free.
    """

    days: float = 14.0
    max_gb: float = 0.0
    min_free_mb: int = 2048


def check_canary(canary: Canary, *, has_destination: bool, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    at_least(canary, {"every_min": 0, "deadline_min": 0.1}, source, "canary")
    if canary.every_min and not has_destination:
        raise ConfigError(f"{source}: canary.every_min needs a [[deliver]] with canary = true, which no patient uses")


def check(assemble: Assemble, schedule: Schedule, observe: Observe, retain: Retain, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    at_least(assemble, {"quiet_s": 0}, source, "assemble")
    least = {"lease_s": 1, "cpu_threads": 0, "keep_warm": 1, "retry_s": 0, "longest_wait_s": 0, "memory_gb": 0}
    at_least(schedule, {**least, "ray_gpus": 0}, source, "schedule")
    choice(schedule.express, ("auto", "on", "off"), "schedule.express", source)
    choice(schedule.confine, ("available", "required", "off"), "schedule.confine", source)
    choice(schedule.executor, ("local", "ray"), "schedule.executor", source)
    if not DEVICE.fullmatch(schedule.device):
        raise ConfigError(f"{source}: schedule.device is {schedule.device!r}; it can be {DEVICES}")
    within(schedule.slots, 1, 64, source, "schedule.slots")
    at_least(retain, {"days": 0, "max_gb": 0, "min_free_mb": 0}, source, "retain")
    for port in (observe.listen_port, observe.watch_port, observe.work_port):
        within(port, 0, 65535, source, "a port")
    choice(observe.log, ("json", "text"), "observe.log", source)
    choice(observe.level, LEVELS, "observe.level", source)
