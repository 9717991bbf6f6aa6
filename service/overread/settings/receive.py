"""How studies come in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from overread.domain.errors import ConfigError
from overread.settings.limits import ae_title, at_least, choice, within

_LEAST = {
    "max_associations": 1,
    "max_pdu_bytes": 4096,
    "acse_timeout_s": 0.1,
    "dimse_timeout_s": 0.1,
    "network_timeout_s": 0.1,
    "min_free_mb": 0,
}


@dataclass(frozen=True)
class Caller:
    """Who may associate: an AE title (``*`` for any) from a network (CIDR)."""

    ae_title: str = "*"
    network: str = "127.0.0.0/8"


@dataclass(frozen=True)
class Receive:
    """The DIMSE listener: its address, who may call, and its limits (bytes, seconds, free disk in MB).

    ``min_free_mb`` is the spool's high-water mark. ``durability`` none is for measuring only; ``layers`` false takes
    pynetdicom's upper layer as it comes. ``processes`` serve associations; 0: as many as the machine has cores, four at
    most.
    """

    ae_title: str = "OVERREAD"
    host: str = "127.0.0.1"
    port: int = 11112
    require_called_ae: bool = True
    allow: tuple[Caller, ...] = (Caller(), Caller(network="::1/128"))
    max_associations: int = 40
    max_pdu_bytes: int = 131072
    acse_timeout_s: float = 15.0
    dimse_timeout_s: float = 60.0
    network_timeout_s: float = 60.0
    min_free_mb: int = 1024
    durability: str = "full"
    layers: bool = True
    processes: int = 0


def check(r: Receive, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    ae_title(r.ae_title, source, "receive.ae_title")
    choice(r.durability, ("full", "none"), "receive.durability", source)
    within(r.port, 0, 65535, source, "a port")
    at_least(r, _LEAST, source, "receive")
    within(r.processes, 0, 64, source, "receive.processes")
    for caller in r.allow:
        ae_title(caller.ae_title, source, "receive.allow: ae_title")
        try:
            ipaddress.ip_network(caller.network)
        except ValueError as error:
            raise ConfigError(f"{source}: receive.allow network {caller.network!r}: {error}") from None
