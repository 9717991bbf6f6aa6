"""How studies come in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

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
_LEAST_LIMITS: dict[str, float] = {
    "instance_mb": 1,
    "message_mb": 1,
    "elements": 1000,
    "depth": 8,
    "frame_mb": 1,
    "inflated_mb": 1,
    "inflated_ratio": 10,
    "commitment_instances": 1,
}


@dataclass(frozen=True)
class Caller:
    """Who may associate: an AE title (``*`` for any) from a network (CIDR)."""

    ae_title: str = "*"
    network: str = "127.0.0.0/8"


@dataclass(frozen=True)
class Limits:
    """What one sender may ask of us, however hostile: MB, counts, and inflated bytes for each deflated one."""

    instance_mb: int = 8192
    message_mb: int = 64
    elements: int = 10_000_000
    depth: int = 64
    frame_mb: int = 1024
    inflated_mb: int = 1024
    inflated_ratio: int = 500
    commitment_instances: int = 10_000


@dataclass(frozen=True)
class CommitmentPeer:
    """Where a modality listens for the outcome of its storage commitment."""

    ae_title: str
    host: str
    port: int = 104


@dataclass(frozen=True)
class Commitment:
    """Storage commitment: for how many days it is promised, and how its outcome is told (seconds, hours)."""

    days: float = 7.0
    timeout_s: float = 30.0
    first_retry_s: float = 5.0
    give_up_after_h: float = 24.0
    peers: tuple[CommitmentPeer, ...] = ()


@dataclass(frozen=True)
class Receive:
    """The DIMSE listener: its address, who may call, and its limits (bytes, seconds, free disk in MB).

    ``min_free_mb`` is the spool's high-water mark. ``durability`` none is for measuring only; ``layers`` false takes
    pynetdicom's upper layer as it comes.
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
    limits: Limits = field(default_factory=Limits)
    commitment: Commitment = field(default_factory=Commitment)


def check(r: Receive, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    ae_title(r.ae_title, source, "receive.ae_title")
    choice(r.durability, ("full", "none"), "receive.durability", source)
    within(r.port, 0, 65535, source, "a port")
    at_least(r, _LEAST, source, "receive")
    at_least(r.limits, _LEAST_LIMITS, source, "receive.limits")
    _check_commitment(r.commitment, source)
    for caller in r.allow:
        ae_title(caller.ae_title, source, "receive.allow: ae_title")
        try:
            ipaddress.ip_network(caller.network)
        except ValueError as error:
            raise ConfigError(f"{source}: receive.allow network {caller.network!r}: {error}") from None


def _check_commitment(c: Commitment, source: str) -> None:
    least = {"days": 0, "timeout_s": 0.1, "first_retry_s": 0.1, "give_up_after_h": 0}
    at_least(c, least, source, "receive.commitment")
    titles = [peer.ae_title for peer in c.peers]
    for peer in c.peers:
        ae_title(peer.ae_title, source, "receive.commitment.peers: ae_title")
        within(peer.port, 1, 65535, source, f"receive.commitment.peers {peer.ae_title!r}: port")
        if not peer.host:
            raise ConfigError(f"{source}: receive.commitment.peers {peer.ae_title!r} needs a host")
        if titles.count(peer.ae_title) > 1:
            raise ConfigError(f"{source}: two receive.commitment.peers share the ae_title {peer.ae_title!r}")
