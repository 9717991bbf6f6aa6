"""The state of the whole service in numbers, read from the ledger when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Backlog:
    """``studies`` by state; ``jobs`` by (model, state); ``deliveries`` by (destination, state); ages in seconds of the
    oldest job that waits for a worker and the oldest delivery that waits for a destination (0 when none waits);
    ``open_destinations``: those whose circuit breaker is open."""

    studies: dict[str, int] = field(default_factory=dict)
    jobs: dict[tuple[str, str], int] = field(default_factory=dict)
    deliveries: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest_job_s: float = 0.0
    oldest_delivery_s: float = 0.0
    open_destinations: frozenset[str] = frozenset()
