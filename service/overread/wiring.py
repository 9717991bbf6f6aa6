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
from overread.domain.card import Card, read_card
from overread.domain.errors import ConfigError, Unreachable
from overread.ports import Destination, Herald
from overread.settings import Deliver, Settings

if TYPE_CHECKING:
    from overread.deliver.outbox import Outbox
    from overread.deliver.round import Terms
    from overread.deliver.sweep import Sweep
    from overread.ledger import Ledger
    from overread.observe.metrics import Metrics
    from overread.receive.admission import Admission
    from overread.schedule.clock import Clock
    from overread.spool import Spool
    from overread.spool.answers import AnswerBox
    from overread.spool.quarantine import Quarantine

_log = logging.getLogger("overread")
MB = 1 << 20


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
    from overread.receive.admission import Admission

    r = settings.receive
    called = r.ae_title if r.require_called_ae else None
    allow = [(a.ae_title, a.network) for a in r.allow]
    return Admission(allow, called, r.max_associations, room_left(settings, store))


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


def answer_box(settings: Settings) -> AnswerBox:
    """Answers to storage commitment that have come and were not read yet, in the spool."""
    from overread.spool.answers import AnswerBox

    return AnswerBox(settings.data_path / "spool" / "commitment-answers")


def result_kinds(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Which kinds of result each destination takes; a rejection note where earlier results are to be withdrawn."""
    return {d.name: (*d.results, *(("rejection",) if d.withdraw == "rejection-note" else ())) for d in settings.deliver}


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
    from overread.deliver.commitment import take_answers
    from overread.deliver.outbox import settle
    from overread.route.router import route_complete_studies
    from overread.schedule.claims import lapse
    from overread.schedule.retention import Limits, retire

    settings, books, store, herald = watch.settings, watch.books, watch.store, watch.herald
    quiet = QuietTime(settings.assemble.quiet_s, settings.assemble.quiet_by_modality_s)
    clock.every(1, "assemble", lambda: close_quiet_studies(books, quiet, time.time(), herald))
    clock.every(1, "route", lambda: route_complete_studies(books, watch.models, herald))
    clock.every(1, "settle", lambda: settle(books, herald))
    clock.every(5, "lapse", lambda: lapse(books, time.time(), herald))
    r = settings.retain
    limits = Limits(r.days * 86400, int(r.max_gb * 1024 * MB), r.min_free_mb * MB)
    clock.every(60, "retain", lambda: retire(books, store, limits, time.time()))
    clock.every(1, "commitment answers", lambda: take_answers(books, answer_box(settings), herald))
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


def disk_check(settings: Settings, store: Spool) -> Callable[[], str | None]:
    """A readiness check: is there room in the spool?"""

    def check() -> str | None:
        free, least = store.free_bytes() // MB, settings.receive.min_free_mb
        return None if free > least else f"{free} MB free where the spool lies, {least} MB are wanted"

    return check
