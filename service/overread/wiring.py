"""Settings in, running parts out: the only file that knows every room."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overread import __version__
from overread.domain.called import CalledAE
from overread.domain.card import Card, read_card
from overread.domain.errors import ConfigError, Unreachable
from overread.domain.peer import Peer
from overread.domain.variant import FLOOR
from overread.ports import Destination, Encoder, Herald
from overread.settings import Caller, Deliver, Settings

if TYPE_CHECKING:
    from overread.infer.pool import WorkerPool
    from overread.journey import Encoding
    from overread.ledger import Ledger
    from overread.observe.metrics import Metrics
    from overread.receive.admission import Admission
    from overread.receive.certificates import Terms
    from overread.receive.commitment.docket import Docket
    from overread.receive.commitment.service import Commitment
    from overread.receive.door import Door
    from overread.receive.intake import Intake
    from overread.receive.receipt import Receipt
    from overread.receive.stow.limits import Limits as StowLimits
    from overread.receive.stow.server import Server
    from overread.receive.tls import Tls
    from overread.receive.upper_layer import Layers
    from overread.schedule.clock import Clock
    from overread.spool import Spool
    from overread.spool.limits import Limits
    from overread.spool.quarantine import Quarantine

_log = logging.getLogger("overread")
MB = 1 << 20
UNFIT = "unfit"  # made of what was not read, so that no encoder makes it


def cards(settings: Settings) -> tuple[Card, ...]:
    """The cards of all installed models, by name; raises CardError or ConfigError when two share a name."""
    found: dict[str, Card] = {}
    for root in settings.models:
        for path in sorted(Path(root).glob("*/card.toml")):
            card = read_card(path.parent)
            if card.name in found:
                raise ConfigError(f"two models are named {card.name!r}: {found[card.name].folder} and {card.folder}")
            found[card.name] = card
    return tuple(found.values())


def spool(settings: Settings) -> Spool:
    """The spool in the data folder."""
    from overread.spool import Spool

    return Spool(settings.data_path / "spool", durable=settings.receive.durability != "none")


def quarantine(settings: Settings) -> Quarantine:
    """What could not be read, in the spool."""
    from overread.spool.quarantine import Quarantine

    return Quarantine(settings.data_path / "spool" / "quarantine", durable=settings.receive.durability != "none")


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
    named = {c.ae_title: CalledAE(c.ae_title, c.priority, c.hint, c.models) for c in r.called}
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


def ledger(settings: Settings) -> Ledger:
    """The ledger, migrated."""
    from overread.ledger import open_ledger

    settings.data_path.mkdir(parents=True, exist_ok=True)
    return open_ledger(settings.ledger_url)


def destination(settings: Settings, to: Deliver) -> Destination:
    """One destination of the settings."""
    from overread.deliver import destination as make

    if to.kind == "folder":
        return make("folder", name=to.name, folder=Path(to.folder))
    peer = Peer(to.ae_title, to.host, to.port)
    proof = "none" if to.proof == "none" else "c-find"
    return make(
        "dimse",
        name=to.name,
        peer=peer,
        own_ae_title=settings.receive.ae_title,
        proof=proof,
        timeout_s=to.timeout_s,
    )


def result_kinds(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Which kinds of result each destination takes."""
    return {d.name: d.kinds for d in settings.deliver}


def encoding(settings: Settings) -> Encoding:
    """What is made of findings: the kinds and variants that any destination takes, each once."""
    from overread.encode import encoders
    from overread.journey import Encoding

    kinds = sorted({k for d in settings.deliver for k in d.kinds} - {UNFIT}) or ["seg", "sr"]
    variants = tuple(dict.fromkeys(v for d in settings.deliver for v in d.variants)) or (FLOOR,)
    return Encoding(encoders(kinds), variants, settings.encode)


def tells_unfit(settings: Settings) -> bool:
    """Whether any destination is told why a study could not be analysed."""
    return any(UNFIT in d.kinds for d in settings.deliver)


def pool(settings: Settings, herald: Herald) -> WorkerPool:
    """The processes in which models run."""
    from overread.infer.pool import WorkerPool

    s = settings.schedule
    threads = s.cpu_threads or max(1, (os.cpu_count() or 1) // s.slots)
    return WorkerPool(herald, device=s.device, threads=threads, keep_warm=s.keep_warm)


def encoders_of(kinds: Sequence[str]) -> tuple[Encoder, ...]:
    """The encoders of some kinds."""
    from overread.encode import encoders

    return encoders(kinds)


def watching(settings: Settings, models: Sequence[Card]) -> tuple[Metrics, Herald]:
    """Metrics and the herald that feeds them and the log."""
    from overread.observe.herald import Heralds
    from overread.observe.logs import log_event
    from overread.observe.metrics import Metrics

    metrics = Metrics(__version__, models=[c.name for c in models], destinations=[d.name for d in settings.deliver])
    return metrics, Heralds(metrics, log_event, on_failure=metrics.count_herald_failure)


def room_left(settings: Settings, store: Spool) -> Callable[[], bool]:
    """Whether the spool's disk has more free than the settings ask for; asked at most once a second."""
    least, last = settings.receive.min_free_mb * MB, [0.0, True]

    def enough() -> bool:
        now = time.monotonic()
        if now - last[0] > 1.0:
            last[:] = [now, store.free_bytes() > least]
        return bool(last[1])

    return enough


def worker_name() -> str:
    """Who holds this machine's leases: the same name after a restart."""
    return f"{socket.gethostname()}:{os.getuid()}"


@dataclass(frozen=True)
class Watch:
    """What the watch role works with."""

    settings: Settings
    books: Ledger
    store: Spool
    models: tuple[Card, ...]
    herald: Herald


def tick_all(clock: Clock, watch: Watch) -> None:
    """Everything the watch role does, on the clock."""
    from overread.assemble.quiet import QuietTime, close_quiet_studies
    from overread.deliver.outbox import Outbox, Patience, settle
    from overread.route.router import route_complete_studies
    from overread.schedule.claims import lapse
    from overread.schedule.retention import Limits, retire
    from overread.spool.frames import SpoolFrames

    settings, books, store, herald = watch.settings, watch.books, watch.store, watch.herald
    quiet = QuietTime(settings.assemble.quiet_s, settings.assemble.quiet_by_modality_s)
    titles = served(settings)
    clock.every(1, "assemble", lambda: close_quiet_studies(books, quiet, time.time(), herald))
    frames = SpoolFrames(store.absolute)
    clock.every(1, "route", lambda: route_complete_studies(books, watch.models, herald, titles, frames))
    clock.every(1, "settle", lambda: settle(books, herald))
    clock.every(5, "lapse", lambda: lapse(books, time.time(), herald))
    r = settings.retain
    limits = Limits(r.days * 86400, int(r.max_gb * 1024 * MB), r.min_free_mb * MB)
    clock.every(60, "retain", lambda: retire(books, store, limits, time.time()))
    for to in settings.deliver:
        patience = Patience(to.first_retry_s, to.longest_retry_s, to.give_up_after_h * 3600)
        outbox = Outbox(books, destination(settings, to), patience, store.absolute, herald)
        clock.every(1, f"deliver {to.name}", outbox.work)


def ledger_check(books: Ledger) -> Callable[[], str | None]:
    """A readiness check: does the ledger answer?"""

    def check() -> str | None:
        try:
            books.answer()
        except Unreachable as error:
            return str(error)
        return None

    return check


def disk_check(settings: Settings, store: Spool) -> Callable[[], str | None]:
    """A readiness check: is there room in the spool?"""

    def check() -> str | None:
        free, least = store.free_bytes() // MB, settings.receive.min_free_mb
        return None if free > least else f"{free} MB free where the spool lies, {least} MB are wanted"

    return check
