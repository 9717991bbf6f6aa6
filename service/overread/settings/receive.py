"""How studies come in."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from overread.domain.called import PRIORITIES
from overread.domain.errors import ConfigError
from overread.settings.limits import ae_title, at_least, choice, within

_LEAST = {
    "max_associations": 1,
    "max_connections": 1,
    "max_connections_per_address": 1,
    "max_pdu_bytes": 4096,
    "acse_timeout_s": 0.1,
    "dimse_timeout_s": 0.1,
    "network_timeout_s": 0.1,
    "min_free_mb": 0,
}
_LEAST_OF_CALLER: dict[str, float] = {"max_associations": 0, "max_per_minute": 0, "max_gb_per_day": 0}

CLIENT_CERTIFICATES = ("none", "optional", "required")
PROFILES = ("bcp195", "bcp195-modified")
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
    """Who may associate, and how much: an AE title (``*`` for any) from a network (CIDR), to an AE title (empty: any
    that is served), with a client certificate that carries such a name (empty: none needed). A limit of 0 is none; of
    associations it is half of all."""

    ae_title: str = "*"
    network: str = "127.0.0.0/8"
    called_ae: str = ""
    certificate: str = ""
    max_associations: int = 0
    max_per_minute: int = 0
    max_gb_per_day: float = 0.0


@dataclass(frozen=True)
class Called:
    """An AE title that is served beside ``receive.ae_title``: how urgent what is sent to it is (Defined Terms of
    Requested Procedure Priority (0040,1003)), a word that its jobs carry, the models that may read it, and
    within how many seconds of the last image its results are wanted (0: not said)."""

    ae_title: str
    priority: str = "ROUTINE"
    hint: str = ""
    models: tuple[str, ...] = ()
    deadline_s: float = 0.0


@dataclass(frozen=True)
class Tls:
    """The secure port (PS3.15 Section B.12 and B.13), 0 for none. Files are PEM; ``host`` empty is ``receive.host``."""

    port: int = 0
    host: str = ""
    certificate: str = ""
    key: str = ""
    client_certificates: str = "none"
    client_ca: str = ""
    crl: str = ""
    profile: str = "bcp195"
    handshake_timeout_s: float = 10.0


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
class Token:
    """A sender of STOW-RS: the name it goes by, as an AE title, and the file that holds its bearer token."""

    name: str
    file: str


@dataclass(frozen=True)
class Stow:
    """The STOW-RS server: its address, whose tokens it takes, and its limits (MB of 2^20 bytes, seconds, how many).

    ``path`` is where ``/studies`` begins. ``tls``: HTTPS, with what the ``tls`` table of DIMSE says.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8104
    path: str = "/dicom-web"
    tls: bool = False
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
    pynetdicom's upper layer as it comes. ``processes`` serve associations; 0: as many as the machine has cores, four at
    most.
    """

    ae_title: str = "OVERREAD"
    host: str = "127.0.0.1"
    port: int = 11112
    require_called_ae: bool = True
    called: tuple[Called, ...] = ()
    allow: tuple[Caller, ...] = (Caller(), Caller(network="::1/128"))
    tls: Tls = field(default_factory=Tls)
    max_associations: int = 40
    max_connections: int = 400
    max_connections_per_address: int = 100
    max_pdu_bytes: int = 131072
    acse_timeout_s: float = 15.0
    dimse_timeout_s: float = 60.0
    network_timeout_s: float = 60.0
    min_free_mb: int = 1024
    durability: str = "full"
    layers: bool = True
    processes: int = 0
    limits: Limits = field(default_factory=Limits)
    commitment: Commitment = field(default_factory=Commitment)
    stow: Stow = field(default_factory=Stow)


def check(r: Receive, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    ae_title(r.ae_title, source, "receive.ae_title")
    choice(r.durability, ("full", "none"), "receive.durability", source)
    within(r.port, 0, 65535, source, "a port")
    at_least(r, _LEAST, source, "receive")
    within(r.processes, 0, 64, source, "receive.processes")
    _check_called(r, source)
    for caller in r.allow:
        _check_caller(caller, r, source)
    _check_tls(r.tls, r.stow.enabled and r.stow.tls, source)
    at_least(r.limits, _LEAST_LIMITS, source, "receive.limits")
    _check_commitment(r.commitment, source)
    _check_stow(r.stow, source)


def _check_called(r: Receive, source: str) -> None:
    titles = [r.ae_title] + [c.ae_title for c in r.called if c.ae_title != r.ae_title]
    twice = {c.ae_title for c in r.called if [x.ae_title for x in r.called].count(c.ae_title) > 1}
    for called in r.called:
        ae_title(called.ae_title, source, "receive.called: ae_title")
        choice(called.priority, PRIORITIES, f"receive.called {called.ae_title}: priority", source)
        at_least(called, {"deadline_s": 0}, source, f"receive.called {called.ae_title}")
        if called.hint and not re.fullmatch(r"[\w.-]{1,32}", called.hint, re.ASCII):
            raise ConfigError(
                f"{source}: receive.called {called.ae_title}: hint {called.hint!r} must be one word of at most 32 "
                "letters, digits, '.', '-' or '_'"
            )
    if twice:
        raise ConfigError(f"{source}: receive.called names {sorted(twice)[0]!r} twice; one table for each AE title")
    for caller in r.allow:
        if caller.called_ae and r.require_called_ae and caller.called_ae not in titles:
            raise ConfigError(
                f"{source}: receive.allow called_ae {caller.called_ae!r} is not served (served: {', '.join(titles)}); "
                "add a [[receive.called]] table"
            )


def _check_caller(caller: Caller, r: Receive, source: str) -> None:
    ae_title(caller.ae_title, source, "receive.allow: ae_title")
    at_least(caller, _LEAST_OF_CALLER, source, f"receive.allow {caller.ae_title}")
    try:
        ipaddress.ip_network(caller.network)
    except ValueError as error:
        raise ConfigError(f"{source}: receive.allow network {caller.network!r}: {error}") from None
    if caller.certificate and (not r.tls.port or r.tls.client_certificates == "none"):
        raise ConfigError(
            f"{source}: receive.allow {caller.ae_title}: a certificate is wanted, but nobody is asked for one: set "
            'receive.tls.port, and receive.tls.client_certificates to "optional" or "required"'
        )


def _check_tls(tls: Tls, also: bool, source: str) -> None:
    within(tls.port, 0, 65535, source, "receive.tls.port")
    choice(tls.client_certificates, CLIENT_CERTIFICATES, "receive.tls.client_certificates", source)
    choice(tls.profile, PROFILES, "receive.tls.profile", source)
    at_least(tls, {"handshake_timeout_s": 0.1}, source, "receive.tls")
    if not tls.port and not also:
        return
    asked = "receive.tls.port" if tls.port else "receive.stow.tls"
    wanted = {"certificate": tls.certificate, "key": tls.key}
    if tls.client_certificates != "none":
        wanted["client_ca"] = tls.client_ca
    for name, value in wanted.items():
        if not value:
            raise ConfigError(f"{source}: {asked} is set, so receive.tls.{name} must name a PEM file")
    if tls.crl and tls.client_certificates == "none":
        raise ConfigError(f"{source}: receive.tls.crl is for client certificates; set receive.tls.client_certificates")


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
    t = r.tls
    certificate, key, client_ca, crl = (str(base / f) if f else "" for f in (t.certificate, t.key, t.client_ca, t.crl))
    tls = replace(t, certificate=certificate, key=key, client_ca=client_ca, crl=crl)
    return replace(r, stow=replace(r.stow, tokens=tokens), tls=tls)
