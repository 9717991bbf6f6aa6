"""How studies come in."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

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
_STOW_LEAST = {
    "max_connections": 1,
    "max_connections_per_address": 1,
    "header_timeout_s": 0.1,
    "idle_timeout_s": 0.1,
    "stall_timeout_s": 0.1,
    "min_kb_per_s": 0,
    "max_header_kb": 1,
    "max_part_mb": 1,
    "max_request_mb": 1,
    "max_parts": 1,
}


@dataclass(frozen=True)
class Caller:
    """Who may associate: an AE title (``*`` for any) from a network (CIDR)."""

    ae_title: str = "*"
    network: str = "127.0.0.0/8"


@dataclass(frozen=True)
class Token:
    """A sender of STOW-RS: the name it goes by, as an AE title, and the file that holds its bearer token."""

    name: str
    file: str


@dataclass(frozen=True)
class Stow:
    """The STOW-RS server: its address, whose tokens it takes, and its limits (MB of 2^20 bytes, seconds, how many).

    ``path`` is where ``/studies`` begins.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8104
    path: str = "/dicom-web"
    tokens: tuple[Token, ...] = ()
    max_connections: int = 256
    max_connections_per_address: int = 256
    header_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    stall_timeout_s: float = 30.0
    min_kb_per_s: float = 1.0
    max_header_kb: int = 16
    max_part_mb: int = 4096
    max_request_mb: int = 16384
    max_parts: int = 10000


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
    stow: Stow = field(default_factory=Stow)


def check(r: Receive, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    ae_title(r.ae_title, source, "receive.ae_title")
    choice(r.durability, ("full", "none"), "receive.durability", source)
    within(r.port, 0, 65535, source, "a port")
    at_least(r, _LEAST, source, "receive")
    for caller in r.allow:
        ae_title(caller.ae_title, source, "receive.allow: ae_title")
        try:
            ipaddress.ip_network(caller.network)
        except ValueError as error:
            raise ConfigError(f"{source}: receive.allow network {caller.network!r}: {error}") from None
    _check_stow(r.stow, source)


def _check_stow(s: Stow, source: str) -> None:
    within(s.port, 0, 65535, source, "receive.stow.port")
    at_least(s, _STOW_LEAST, source, "receive.stow")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", s.path):
        raise ConfigError(f"{source}: receive.stow.path {s.path!r} is no path; it is like /dicom-web, or / for none")
    names = [token.name for token in s.tokens]
    for token in s.tokens:
        ae_title(token.name, source, "receive.stow.tokens: name")
        if not token.file:
            raise ConfigError(f"{source}: receive.stow.tokens {token.name!r} needs a file that holds its token")
        if names.count(token.name) > 1:
            raise ConfigError(f"{source}: two of receive.stow.tokens share the name {token.name!r}; names must differ")


def resolve(r: Receive, base: Path) -> Receive:
    """Relative paths of files are relative to ``base``."""
    tokens = tuple(replace(token, file=str(base / token.file)) for token in r.stow.tokens)
    return replace(r, stow=replace(r.stow, tokens=tokens))
