"""``overread check``: would it run, and if not, what to mend? With ``--spool``: is every image there, and whole?"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from overread import wiring
from overread.adopt.validate import faults
from overread.console.deliveries import moment
from overread.domain.canary import AE_TITLE
from overread.domain.card import Card, read_card
from overread.domain.errors import OverreadError, Refused
from overread.settings import Caller, Receive, Settings

if TYPE_CHECKING:
    from overread.ledger import Ledger
    from overread.spool import Spool

MOST_TOLD = 20


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; ``wrong`` when it needs mending."""

    what: str
    said: str
    wrong: bool = False


def check(settings: Settings) -> Iterator[Line]:
    """Look at data folder, ledger, models and destinations."""
    yield _data(settings)
    yield _ledger(settings)
    yield from _models(settings)
    yield from _schedule(settings)
    yield from _callers(settings)
    yield from _called(settings)
    yield from _tls(settings)
    yield from _stow(settings)
    yield from _durability(settings)
    yield _retention(settings)
    yield from _canary(settings)
    if not settings.deliver:
        yield Line("deliver", "no destination is configured: results stay in the spool; add a [[deliver]] table")
    for to in settings.deliver:
        try:
            yield Line(f"deliver {to.name}", wiring.destination(settings, to).check())
        except OverreadError as error:
            yield Line(f"deliver {to.name}", str(error), wrong=True)


def check_spool(settings: Settings) -> Iterator[Line]:
    """Compare spool and ledger, and read every file; changes neither."""
    try:
        store, books = wiring.spool(settings), wiring.ledger(settings)
    except OverreadError as error:
        yield Line("spool", str(error), wrong=True)
        return
    try:
        yield from _compared(store, books)
        yield from _read(store, books)
    finally:
        books.close()
    yield _incoming(settings, store)
    count, size = wiring.quarantine(settings).count_and_bytes()
    yield Line("quarantine", f"{count} kept, {size // wiring.MB} MB; overread quarantine list names them")


def check_model(card: Card) -> Line:
    """Are its weights those of the card, and its files those that somebody trusted?"""
    wrong = next((fault for fault in faults(card) if fault.wrong), None)
    if wrong is not None:
        return Line(f"model {card.name}", wrong.said, wrong=True)
    labels = ", ".join(label.name for label in card.labels)
    return Line(f"model {card.name}", f"{card.version}, reads {card.accepts.plane} {card.accepts.modality}: {labels}")


def _data(settings: Settings) -> Line:
    path = settings.data_path
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Line("data", f"{path} cannot be written ({error.strerror}); give it to this user", wrong=True)
    free = wiring.spool(settings).free_bytes() // wiring.MB
    if free < settings.receive.min_free_mb:
        least = settings.receive.min_free_mb
        return Line("data", f"{path} has {free} MB free, receive.min_free_mb asks for {least}", wrong=True)
    return Line("data", f"{path.resolve()}, {free} MB free")


def _ledger(settings: Settings) -> Line:
    try:
        books = wiring.ledger(settings)
        books.answer()
        books.close()
    except OverreadError as error:
        return Line("ledger", str(error), wrong=True)
    return Line("ledger", "PostgreSQL answers" if settings.ledger.startswith("postgresql") else "SQLite answers")


def _models(settings: Settings) -> Iterator[Line]:
    folders = [p.parent for root in settings.models for p in sorted(Path(root).glob("*/card.toml"))]
    if not folders:
        roots = ", ".join(settings.models)
        yield Line("models", f"no model in {roots}: each needs a folder with a card.toml", wrong=True)
    for folder in folders:
        try:
            yield check_model(read_card(folder))
        except OverreadError as error:
            yield Line(f"model {folder.name}", str(error), wrong=True)


def _schedule(settings: Settings) -> Iterator[Line]:
    from overread.wiring import capacity

    s = settings.schedule
    try:
        wrong = list(capacity.faults(settings, wiring.cards(settings)))
    except OverreadError:  # of a card, and told with the models
        wrong = list(capacity.faults(settings, ()))
    yield from (Line("schedule", said, wrong=True) for said in wrong)
    if not wrong:
        place = " and a place for STAT" if wiring.express(settings) else ""
        most = f", {capacity.budget_mb(settings)} MB for all models" if s.executor == "local" else ""
        yield Line("schedule", f"{s.executor}, {s.slots} at the same time{place}{most}, device {s.device}")


def _callers(settings: Settings) -> Iterator[Line]:
    r = settings.receive
    secure = f", with TLS port {r.tls.port}" if r.tls.port else ""
    if not r.allow:
        said = "nobody may call; add a [[receive.allow]] table"
        yield Line("receive", f"{r.host} port {r.port}{secure}: {said}", wrong=True)
        return
    yield Line("receive", f"{r.host} port {r.port}{secure}; {r.max_associations} associations at once; who may call:")
    for caller in r.allow:
        yield Line("  may call", _caller(caller, r))


def _canary(settings: Settings) -> Iterator[Line]:
    every = settings.canary.every_min
    if not every:
        return
    if any(caller.ae_title in ("*", AE_TITLE) for caller in settings.receive.allow):
        within = settings.canary.deadline_min
        yield Line("canary", f"one flies every {every:g} minutes, and is to be home within {within:g}")
    else:
        yield Line("canary", f"{AE_TITLE} may not call; add a [[receive.allow]] table for it", wrong=True)


def _caller(a: Caller, r: Receive) -> str:
    from overread.receive.admission import share

    who = "any AE title" if a.ae_title == "*" else a.ae_title
    to = f" to {a.called_ae}" if a.called_ae else "" if r.require_called_ae else ", whatever it calls"
    shown = f", with a certificate for {a.certificate}" if a.certificate else ""
    limits = [f"{a.max_associations or share(r.max_associations)} associations"]
    limits += [f"{a.max_per_minute} a minute"] if a.max_per_minute else []
    limits += [f"{a.max_gb_per_day:g} GB a day"] if a.max_gb_per_day else []
    each = " for each address" if a.ae_title == "*" else ""
    return f"{who} from {a.network}{to}{shown}; at most {', '.join(limits)}{each}"


def _called(settings: Settings) -> Iterator[Line]:
    known = {p.parent.name for root in settings.models for p in Path(root).glob("*/card.toml")}
    for title in wiring.served(settings).values():
        unknown = sorted(set(title.models) - known)
        if unknown:
            said = f"{title.ae_title} is for the model {unknown[0]}, which is not installed"
            yield Line("  is called", f"{said}; installed are {', '.join(sorted(known)) or 'none'}", wrong=True)
            continue
        hint = f", hint {title.hint}" if title.hint else ""
        models = f", for {' and '.join(title.models)} only" if title.models else ""
        yield Line("  is called", f"{title.ae_title}: priority {title.priority}{hint}{models}")


def _tls(settings: Settings) -> Iterator[Line]:
    from overread.receive.certificates import make_context, validities

    terms = wiring.tls_terms(settings)
    if terms is None:
        return
    try:
        make_context(terms)
        found = validities(terms)
    except OverreadError as error:
        yield Line("tls", str(error), wrong=True)
        return
    t = settings.receive.tls
    yield Line("tls", f"port {t.port}, profile {t.profile}, client certificates: {t.client_certificates}")
    now = time.time()
    for name, validity in found.items():
        path = terms.files()[name]
        if now < validity.begins:
            yield Line(f"  {name}", f"{path} is not valid before {moment(validity.begins)}", wrong=True)
            continue
        days = (validity.ends - now) / 86400
        said = f"{path} is valid until {moment(validity.ends)}, {days:.0f} days" if days < 1e6 else f"{path} has no end"
        yield Line(f"  {name}", said if days > 0 else f"{path} has expired; renew it", wrong=days <= 0)
    if terms.key.stat().st_mode & 0o007:
        yield Line("  key", f"{terms.key} can be read by everybody; chmod 600 it", wrong=True)


def _stow(settings: Settings) -> Iterator[Line]:
    from overread.receive.stow.doorkeeper import TokenFile, require_secret

    s = settings.receive.stow
    if not s.enabled:
        return
    try:
        for token in s.tokens:
            TokenFile(token.name, Path(token.file)).require()
        certified = s.tls and settings.receive.tls.client_certificates == "required"
        require_secret(s.host, has_tokens=bool(s.tokens), has_certificates=certified)
    except OverreadError as error:
        yield Line("receive.stow", str(error), wrong=True)
        return
    who = ", ".join(f"{token.name} by its token" for token in s.tokens) or "the allow-list, without a token"
    url = f"{'https' if s.tls else 'http'}://{s.host}:{s.port}{s.path.rstrip('/')}/studies"
    yield Line("receive.stow", f"{url} takes studies from: {who}")


def _durability(settings: Settings) -> Iterator[Line]:
    if settings.receive.durability != "full":
        said = 'is "none": what was acknowledged can be lost with the power; set it to "full" where patients are'
        yield Line("receive.durability", said, wrong=True)


def _retention(settings: Settings) -> Line:
    keep, least = settings.retain, settings.receive.min_free_mb
    if keep.min_free_mb < least:
        said = f"retain.min_free_mb ({keep.min_free_mb}) is less than receive.min_free_mb ({least}): images are refused"
        return Line("retain", f"{said} before retention makes room; make it larger", wrong=True)
    limit = f"until they take {keep.max_gb:g} GB or " if keep.max_gb else "until "
    return Line("retain", f"finished studies stay {keep.days:g} days, {limit}less than {keep.min_free_mb} MB are free")


class _Few:
    """Tells the first of many, and how many more there are."""

    def __init__(self, what: str, *, wrong: bool) -> None:
        self._what, self._wrong = what, wrong
        self.seen = 0

    def tell(self, said: str) -> Iterator[Line]:
        self.seen += 1
        if self.seen <= MOST_TOLD:
            yield Line(self._what, said, self._wrong)

    def rest(self) -> Iterator[Line]:
        if self.seen > MOST_TOLD:
            yield Line(self._what, f"and {self.seen - MOST_TOLD} more", self._wrong)


def _compared(store: Spool, books: Ledger) -> Iterator[Line]:
    from overread.ledger import views
    from overread.receive.survey import compare

    unindexed, lost = _Few("not in the ledger", wrong=False), _Few("LOST", wrong=True)
    for (kind, _), found in groupby(compare(store, books), lambda pair: (pair[0], pair[1].rpartition("/")[0])):
        if kind == "unindexed":
            for _, path in found:
                yield from unindexed.tell(f"{path}; a running listener, or the next start, takes it in")
            continue
        paths = [path for _, path in found]
        study = views.study_at(books, paths[0]) if lost.seen < MOST_TOLD else ""
        yield from lost.tell(f"{len(paths)} files of study {study}, such as {paths[0]}; send the study again")
    yield from unindexed.rest()
    yield from lost.rest()
    if not unindexed.seen and not lost.seen:
        yield Line("spool", "it agrees with the ledger")


def _read(store: Spool, books: Ledger) -> Iterator[Line]:
    from overread.ledger import views

    damaged, count = _Few("damaged", wrong=True), 0
    for path in store.instance_paths():
        count += 1
        fault = _fault(store.absolute(path))
        if fault is not None:
            study = views.study_at(books, path) or "unknown to the ledger"
            yield from damaged.tell(f"{path} {fault}; send its study again ({study}): what is damaged makes way")
    yield from damaged.rest()
    yield Line("spool", f"{count} files read, {count - damaged.seen} are whole")


def _fault(file: Path) -> str | None:
    """What is wrong with a stored instance."""
    from overread.spool.files import dataset_digest
    from overread.spool.header import read_file

    try:
        if dataset_digest(file)[:16] != file.stem.rpartition("-")[2]:
            return "does not hold what came"
        read_file(file)
    except (Refused, OSError) as error:
        if file.exists():
            return f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        # Otherwise retention has removed it meanwhile.
    return None


def _incoming(settings: Settings, store: Spool) -> Line:
    count = sum(1 for _ in (store.root / "incoming").iterdir())
    if not count or _listening(settings):
        return Line("incoming", f"{count} files are on their way")
    said = f"{count} half-written files, never acknowledged, and no listener runs: start it, it clears them away"
    return Line("incoming", said, wrong=True)


def _listening(settings: Settings) -> bool:
    """Whether a listener holds its lock on the data folder."""
    try:
        with (settings.data_path / "listen.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
