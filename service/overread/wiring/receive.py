"""What stands at the doors: who may come in, what may be taken, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.called import CalledAE
from overread.domain.peer import Peer
from overread.ports import Herald
from overread.settings import Caller, Settings
from overread.wiring.spool import MB, answer_box, quarantine, room_left

if TYPE_CHECKING:
    from overread.receive.admission import Admission
    from overread.receive.certificates import Terms
    from overread.receive.commitment.docket import Docket
    from overread.receive.commitment.service import Commitment
    from overread.receive.commitment_report import Reports
    from overread.receive.door import Door
    from overread.receive.intake import Intake
    from overread.receive.receipt import Receipt
    from overread.receive.stow.limits import Limits as StowLimits
    from overread.receive.stow.server import Server
    from overread.receive.tls import Tls
    from overread.receive.upper_layer import Layers
    from overread.spool import Spool
    from overread.spool.limits import Limits


def admission(settings: Settings, store: Spool) -> Admission:
    """Who may associate, and whether there is room."""
    from overread.receive.admission import Admission, Row

    r = settings.receive
    called = set(served(settings)) if r.require_called_ae else None
    allow = [
        Row(a.ae_title, a.network, a.called_ae, a.certificate, a.max_associations, a.max_per_minute, _bytes(a))
        for a in r.allow
    ]
    return Admission(allow, called, r.max_associations, room_left(settings, store))


def _bytes(caller: Caller) -> int:
    # A limit that is too small to be a byte is no "no limit".
    return max(1, int(caller.max_gb_per_day * 1024 * MB)) if caller.max_gb_per_day else 0


def served(settings: Settings) -> dict[str, CalledAE]:
    """The AE titles that are served, by name."""
    r = settings.receive
    named = {c.ae_title: CalledAE(c.ae_title, c.priority, c.hint, c.models, c.deadline_s) for c in r.called}
    return {r.ae_title: CalledAE(r.ae_title)} | named


def tls_terms(settings: Settings) -> Terms | None:
    """With what TLS is spoken; None when it is not."""
    from overread.receive.certificates import Terms

    t, s = settings.receive.tls, settings.receive.stow
    if not t.port and not (s.enabled and s.tls):
        return None
    client_ca, crl = (Path(p) if p else None for p in (t.client_ca, t.crl))
    demand, timeout_s = t.client_certificates, t.handshake_timeout_s
    return Terms(Path(t.certificate), Path(t.key), demand, client_ca, crl, t.profile, timeout_s)


def tls(settings: Settings, herald: Herald, admitted: Admission) -> Tls | None:
    """The secure door; None when there is none. Raises ConfigError when its files cannot be used."""
    from overread.receive.tls import Tls

    terms = tls_terms(settings)
    return Tls(terms, herald, admitted.ae_title_of) if terms else None


def door(settings: Settings) -> Door:
    """Where and how to listen."""
    from overread.receive.door import Door

    r = settings.receive
    return Door(
        r.ae_title,
        r.host,
        r.port,
        r.max_pdu_bytes,
        r.acse_timeout_s,
        r.dimse_timeout_s,
        r.network_timeout_s,
        r.tls.host,
        r.tls.port,
        r.max_connections,
        r.max_connections_per_address,
        r.limits.message_mb * MB,
    )


def layers(settings: Settings) -> Layers:
    """Which upper layer serves associations."""
    from overread.receive.upper_layer import FAST, STOCK

    return FAST if settings.receive.layers else STOCK


def intake(settings: Settings, store: Spool, keep: Callable[[Receipt], None], herald: Herald) -> Intake:
    """Where instances come in; ``keep`` is given the receipt of each."""
    from overread.receive.intake import Intake

    return Intake(store, quarantine(settings), room_left(settings, store), keep, herald, limits=limits(settings))


def limits(settings: Settings) -> Limits:
    """What one data set may ask."""
    from overread.spool.limits import Limits

    at = settings.receive.limits
    return Limits(
        instance_bytes=at.instance_mb * MB,
        elements=at.elements,
        depth=at.depth,
        frame_bytes=at.frame_mb * MB,
        inflated_bytes=at.inflated_mb * MB,
        inflated_ratio=at.inflated_ratio,
    )


def docket(settings: Settings) -> Docket:
    """Requests for storage commitment that are open, in the spool."""
    from overread.receive.commitment.docket import Docket

    return Docket(settings.data_path / "spool" / "commitment")


def commitment(settings: Settings, herald: Herald) -> Commitment:
    """The listener's part of storage commitment."""
    from overread.receive.commitment.reporter import Patience, Reporter
    from overread.receive.commitment.service import Commitment

    r, c, cases = settings.receive, settings.receive.commitment, docket(settings)
    peers = {p.ae_title: Peer(p.ae_title, p.host, p.port) for p in c.peers}
    patience = Patience(c.timeout_s, c.first_retry_s, c.give_up_after_h * 3600)
    reporter = Reporter(cases, peers, r.ae_title, patience, herald)
    return Commitment(cases, reporter, r.limits.commitment_instances, herald)


def reports(settings: Settings, herald: Herald) -> Reports:
    """The listener's part of the storage commitment that we ask for: what a PACS answers."""
    from overread.receive.commitment_report import Reports

    return Reports(answer_box(settings), herald)


def stow(settings: Settings, received: Intake, admitted: Admission, secure: Tls | None) -> Server | None:
    """The STOW-RS server, None when it is off; raises ConfigError when it would let anybody in."""
    from overread.receive.stow.connection import Site
    from overread.receive.stow.doorkeeper import Admitting, AllowList, TokenFile, require_secret
    from overread.receive.stow.server import Server

    r = settings.receive
    if not r.stow.enabled:
        return None
    tokens = [TokenFile(token.name, Path(token.file)) for token in r.stow.tokens]
    for token in tokens:
        token.require()
    secure = secure if r.stow.tls else None
    has_certificates = secure is not None and r.tls.client_certificates == "required"
    require_secret(r.stow.host, has_tokens=bool(tokens), has_certificates=has_certificates)
    doorkeeper = Admitting(AllowList([(a.ae_title, a.network) for a in r.allow], tokens, r.ae_title), admitted)
    site = Site(
        r.stow.path,
        received,
        doorkeeper,
        stow_limits(settings),
        secure.wrap if secure else None,
        secure.ae_title_of if secure else None,
        left=doorkeeper.leave,
    )
    return Server(r.stow.host, r.stow.port, site)


def stow_limits(settings: Settings) -> StowLimits:
    """What a sender of STOW-RS may take."""
    from overread.receive.stow.limits import Limits

    s = settings.receive.stow
    return Limits(
        connections=s.max_connections,
        connections_per_address=s.max_connections_per_address,
        header_s=s.header_timeout_s,
        idle_s=s.idle_timeout_s,
        stall_s=s.stall_timeout_s,
        least_bytes_s=s.min_kb_per_s * 1024,
        header_bytes=s.max_header_kb * 1024,
        part_bytes=s.max_part_mb * MB,
        request_bytes=s.max_request_mb * MB,
        parts=s.max_parts,
    )
