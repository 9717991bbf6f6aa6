"""What a stranger may take: each limit is a key of ``[receive.stow]``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes, and how many.

    A head must come whole within ``header_s``, the next one begin within ``idle_s``; ``stall_s`` is the longest wait
    within a body, which must come at ``least_bytes_s``. ``header_bytes`` bounds the head of a request, and the headers
    of each part.
    """

    connections: int = 256
    connections_per_address: int = 256
    header_s: float = 10.0
    idle_s: float = 60.0
    stall_s: float = 30.0
    least_bytes_s: float = 1024.0
    header_bytes: int = 16 << 10
    part_bytes: int = 4 << 30
    request_bytes: int = 16 << 30
    parts: int = 10_000
