"""Another application entity on the network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """An AE: its title (PS3.5 Table 6.2-1, at most 16 characters), host and port."""

    ae_title: str
    host: str
    port: int
