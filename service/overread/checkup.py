"""``overread check``: would it run, and if not, what to mend?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overread import wiring
from overread.domain.card import Card, read_card
from overread.domain.errors import OverreadError
from overread.settings import Settings


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
    yield _callers(settings)
    if not settings.deliver:
        yield Line("deliver", "no destination is configured: results stay in the spool; add a [[deliver]] table")
    for to in settings.deliver:
        try:
            yield Line(f"deliver {to.name}", wiring.destination(settings, to).check())
        except OverreadError as error:
            yield Line(f"deliver {to.name}", str(error), wrong=True)


def check_model(card: Card) -> Line:
    """Is the bundle there, and are its weights those of the card?"""
    path = card.folder / card.weights
    if not path.is_file():
        return Line(f"model {card.name}", f"its weights {path} are not there; copy the file there", wrong=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != card.weights_sha256:
        remedy = "put the right file back, or correct weights_sha256 in card.toml if the change was meant"
        return Line(f"model {card.name}", f"the weights' SHA-256 is {found}, not the card's; {remedy}", wrong=True)
    if not any((card.folder / "configs" / f"inference.{end}").is_file() for end in ("json", "yaml", "yml")):
        return Line(f"model {card.name}", f"{card.folder}/configs has no inference config", wrong=True)
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


def _callers(settings: Settings) -> Line:
    r = settings.receive
    callers = ", ".join(f"{a.ae_title} from {a.network}" for a in r.allow) or "nobody"
    return Line("receive", f"{r.ae_title} on {r.host} port {r.port} takes studies from: {callers}", wrong=not r.allow)
