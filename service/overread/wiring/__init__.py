"""Settings in, running parts out: the only room that knows every other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overread import __version__
from overread.domain.called import STAT
from overread.domain.canary import reserved
from overread.domain.card import Card, read_card
from overread.domain.errors import ConfigError, Unreachable
from overread.domain.peer import Peer
from overread.domain.result import roots
from overread.domain.variant import FLOOR
from overread.ports import Destination, Encoder, Herald
from overread.settings import Deliver, Settings
from overread.wiring.receive import (
    admission,
    commitment,
    docket,
    door,
    intake,
    layers,
    limits,
    reports,
    served,
    stow,
    stow_limits,
    tls,
    tls_terms,
)
from overread.wiring.spool import MB, answer_box, disk_check, quarantine, room_left, spool

if TYPE_CHECKING:
    from overread.deliver.outbox import Outbox
    from overread.deliver.round import Terms
    from overread.deliver.sweep import Sweep
    from overread.infer.pool import WorkerPool
    from overread.journey import Encoding
    from overread.ledger import Ledger
    from overread.observe.devices import Devices
    from overread.observe.metrics import Metrics
    from overread.schedule.clock import Clock
    from overread.simulate.canary import Canary, Plan
    from overread.spool import Spool

__all__ = [
    "MB",
    "UNFIT",
    "Watch",
    "admission",
    "answer_box",
    "canary",
    "canary_plan",
    "cards",
    "commitment",
    "delivery_terms",
    "destination",
    "devices",
    "disk_check",
    "docket",
    "door",
    "encoders_of",
    "encoding",
    "express",
    "intake",
    "layers",
    "lazy_destination",
    "ledger",
    "ledger_check",
    "limits",
    "outboxes",
    "pool",
    "quarantine",
    "reports",
    "result_kinds",
    "room_left",
    "root_kinds",
    "served",
    "spool",
    "stow",
    "stow_limits",
    "sweep",
    "tells_unfit",
    "tick_all",
    "tls",
    "tls_terms",
    "watching",
    "worker_name",
]

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


def ledger(settings: Settings) -> Ledger:
    """The ledger, migrated."""
    from overread.ledger import open_ledger

    settings.data_path.mkdir(parents=True, exist_ok=True)
    return open_ledger(settings.ledger_url)


def destination(settings: Settings, to: Deliver) -> Destination:
    """One destination of the settings. Raises ConfigError when a file that it names cannot be used."""
    from overread.deliver import destination as make
    from overread.deliver.options import options

    return make(to.kind, **options(to, settings.receive.ae_title, answer_box(settings)))


def lazy_destination(settings: Settings, to: Deliver) -> Destination:
    """The same, made when it is needed: what is wrong with one delays no other."""
    from overread.deliver.lazy import LazyDestination

    return LazyDestination(to.name, lambda: destination(settings, to))


def result_kinds(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Which kinds of result each destination takes, of patients or of canaries."""
    return {d.name: tuple(map(reserved, d.kinds)) if d.canary else d.kinds for d in settings.deliver}


def encoding(settings: Settings) -> Encoding:
    """What is made of findings: the kinds and variants that any destination takes, each once."""
    from overread.encode import encoders
    from overread.journey import Encoding

    kinds = sorted({k for d in settings.deliver for k in d.kinds} - {UNFIT}) or ["seg", "sr"]
    variants = tuple(dict.fromkeys(v for d in settings.deliver for v in d.variants)) or (FLOOR,)
    return Encoding(encoders(kinds), variants, settings.encode, root_kinds(settings))


def root_kinds(settings: Settings) -> dict[str, frozenset[str]]:
    """Which kinds of results each report lists as the root of the result tree."""
    return roots([d.kinds for d in settings.deliver] or [("seg", "sr")])


def tells_unfit(settings: Settings) -> bool:
    """Whether any destination is told why a study could not be analysed."""
    return any(UNFIT in d.kinds for d in settings.deliver)


def pool(settings: Settings, herald: Herald, folder: Path | None = None) -> WorkerPool:
    """The processes in which models run; ``folder`` holds what they write (default: in the data folder)."""
    from overread.infer.pool import Terms, WorkerPool

    s = settings.schedule
    threads = s.cpu_threads or max(1, (os.cpu_count() or 1) // s.slots)
    budget, folder = int(s.memory_gb * 1024 * MB), folder or settings.data_path / "workers"
    return WorkerPool(herald, device=s.device, keep_warm=s.keep_warm, terms=Terms(threads, budget, s.confine, folder))


def devices() -> Devices:
    """The devices of this machine, to be asked how they stand."""
    from overread.observe.devices import Devices

    return Devices()


def express(settings: Settings) -> bool:
    """Whether there is a further place for STAT jobs."""
    s = settings.schedule
    return s.express == "on" or (s.express == "auto" and any(c.priority == STAT for c in settings.receive.called))


def encoders_of(kinds: Sequence[str]) -> tuple[Encoder, ...]:
    """The encoders of some kinds."""
    from overread.encode import encoders

    return encoders(kinds)


def outboxes(watch: Watch) -> list[Outbox]:
    """The queues of all destinations, not started yet."""
    from overread.deliver.outbox import Outbox

    return [
        Outbox(
            watch.books,
            lazy_destination(watch.settings, to),
            delivery_terms(watch.settings, to),
            watch.store.absolute,
            watch.herald,
            concurrency=to.concurrency,
        )
        for to in watch.settings.deliver
    ]


def delivery_terms(settings: Settings, to: Deliver) -> Terms:
    """How a destination is served. Claims carry the data folder's name: its lock sees to it that there is one of us."""
    from overread.deliver.patience import Patience
    from overread.deliver.round import Terms

    patience = Patience(to.first_retry_s, to.longest_retry_s, to.give_up_after_h * 3600, to.opens_after)
    worker = f"{worker_name()}:{settings.data_path.resolve()}"
    return Terms(patience, worker, to.order == "study", to.timeout_s)


def sweep(watch: Watch, to: Deliver) -> Sweep:
    """The nightly sweep of one destination."""
    from overread.deliver.round import Round
    from overread.deliver.sweep import Sweep

    there, terms = lazy_destination(watch.settings, to), delivery_terms(watch.settings, to)
    one = Round(watch.books, there, terms, watch.store.absolute, watch.herald)
    return Sweep(watch.books, one, 0.0 if to.proof == "none" else to.sweep_days, watch.herald)


def canary(watch: Watch) -> Canary:
    """The canary, which is sent to our own listener."""
    from overread.simulate.canary import Canary

    return Canary(watch.books, canary_plan(watch.settings), watch.herald)


def canary_plan(settings: Settings) -> Plan:
    """How the canary flies."""
    from overread.simulate.canary import Plan

    r, c = settings.receive, settings.canary
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(r.host, r.host)  # what every address includes
    peer = Peer(r.ae_title, host, r.port)
    return Plan(peer, c.every_min * 60, c.deadline_min * 60, Path(c.study) if c.study else None)


def watching(settings: Settings, models: Sequence[Card]) -> tuple[Metrics, Herald]:
    """Metrics and the herald that feeds them and the log."""
    from overread.observe.herald import Heralds
    from overread.observe.logs import log_event
    from overread.observe.metrics import Metrics

    metrics = Metrics(__version__, models=[c.name for c in models], destinations=[d.name for d in settings.deliver])
    return metrics, Heralds(metrics, log_event, on_failure=metrics.count_herald_failure)


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
    from overread.deliver.commitment import take_answers
    from overread.deliver.outbox import settle
    from overread.route.router import route_complete_studies
    from overread.schedule.claims import lapse, watch_deadlines
    from overread.schedule.retention import Limits, retire
    from overread.spool.frames import SpoolFrames

    settings, books, store, herald = watch.settings, watch.books, watch.store, watch.herald
    quiet = QuietTime(settings.assemble.quiet_s, settings.assemble.quiet_by_modality_s, since=time.time())
    titles = served(settings)
    clock.every(1, "assemble", lambda: close_quiet_studies(books, quiet, time.time(), herald))
    frames = SpoolFrames(store.absolute)
    clock.every(1, "route", lambda: route_complete_studies(books, watch.models, herald, titles, frames))
    clock.every(1, "settle", lambda: settle(books, herald))
    clock.every(5, "lapse", lambda: lapse(books, time.time(), herald))
    clock.every(5, "deadlines", lambda: watch_deadlines(books, time.time(), herald))
    r = settings.retain
    limits = Limits(r.days * 86400, int(r.max_gb * 1024 * MB), r.min_free_mb * MB)
    clock.every(60, "retain", lambda: retire(books, store, limits, time.time()))
    clock.every(1, "commitment answers", lambda: take_answers(books, answer_box(settings), herald))
    if settings.canary.every_min:
        clock.every(1, "canary", canary(watch).tick)
    for to in settings.deliver:
        clock.every(600, f"sweep {to.name}", sweep(watch, to).if_due)


def ledger_check(books: Ledger) -> Callable[[], str | None]:
    """A readiness check: does the ledger answer?"""

    def check() -> str | None:
        try:
            books.answer()
        except Unreachable as error:
            return str(error)
        return None

    return check
