"""Where and how to listen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """Where and how to listen; times in seconds. ``secure_host`` and ``secure_port`` are those of TLS."""

    ae_title: str
    host: str
    port: int
    max_pdu_bytes: int
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float
    secure_host: str = ""
    secure_port: int = 0
    max_connections: int = 400
    max_connections_per_address: int = 100
    max_message_bytes: int = 64 << 20
