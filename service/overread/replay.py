"""A job's results made again from what lies in the spool, and compared with what was made then.

Nothing is written but to a scratch folder, nothing is recorded and nothing leaves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from overread import wiring
from overread.domain.card import Card
from overread.domain.errors import ConfigError, OverreadError, Refused, Unfit
from overread.domain.events import Event
from overread.domain.job import Job
from overread.domain.provenance import Provenance
from overread.domain.result import Result
from overread.domain.variant import FLOOR
from overread.domain.volume import Volume
from overread.settings import Settings

if TYPE_CHECKING:
    from overread.journey import Journey
    from overread.ledger import Ledger
    from overread.ports import Engine

MOST_TOLD = 20


@dataclass(frozen=True)
class Outcome:
    """What a replay found: ``lines`` in words; ``same`` when everything is as it was."""

    lines: tuple[str, ...]
    same: bool


def replay(settings: Settings, job_id: int, engine: Engine | None = None) -> Outcome:
    """Make a job's results again and compare them with the stored ones; ``engine`` reads instead of the settings' own.

    Raises ConfigError when there is no such job or it has made nothing; Refused, saying why, when it cannot be read
    again: its images are gone or others, its model is no longer installed.
    """
    with ExitStack() as ending:
        books = wiring.ledger(settings)
        ending.callback(books.close)
        job, results = _job(books, job_id)
        card = _card(settings, job)
        if engine is None:
            engine = pool = wiring.pool(settings, _unheard)
            ending.callback(pool.close)
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="overread-replay-")))
        journey = _journey(settings, books, engine, results)
        lines = [*_changes(journey, job, card, results)]
        again = _again(journey, job, card, folder, was_unfit=any(r.kind == wiring.UNFIT for r in results))
        told = [*_compare(journey, results, again, folder)]
    return Outcome((*lines, *(line for line, _ in told)), all(same for _, same in told))


def _job(books: Ledger, job_id: int) -> tuple[Job, list[Result]]:
    from overread.ledger.views import made_by

    found = made_by(books, job_id)
    if found is None:
        raise ConfigError(f"there is no job {job_id}; overread status and explain tell their numbers")
    job, results = found
    if not results:
        raise ConfigError(f"job {job_id} is {job.state} and has made nothing that could be compared")
    return job, results


def _journey(settings: Settings, books: Ledger, engine: Engine, results: Sequence[Result]) -> Journey:
    """A journey that makes the kinds and variants that were made then, whatever the settings say now."""
    from overread.journey import Encoding, Journey

    kinds = sorted({r.kind for r in results} - {wiring.UNFIT}) or ["seg", "sr"]
    variants = tuple(dict.fromkeys(r.variant for r in results if r.variant)) or (FLOOR,)
    encoding = Encoding(wiring.encoders_of(kinds), variants, settings.encode, wiring.root_kinds(settings))
    return Journey(books, wiring.spool(settings), engine, encoding, _unheard)


def _unheard(_: Event) -> None:
    """A replay is no event of the service."""


def _card(settings: Settings, job: Job) -> Card:
    installed = {card.name: card for card in wiring.cards(settings)}
    card = installed.get(job.model)
    if card is None or card.version != job.model_version:
        now = f"version {card.version} is installed now" if card else "no model of this name is installed now"
        raise Refused(f"job {job.id} was read by {job.model} {job.model_version}: {now}; install that version again")
    return card


def _changes(journey: Journey, job: Job, card: Card, results: Sequence[Result]) -> Iterator[str]:
    then = Provenance.of(results[0].provenance)
    now = Provenance(card.weights_sha256, card.digest, job.input_digest, journey.encoding.style.digest())
    yield f"job {job.id}: {job.model} {job.model_version}, input {job.input_digest[:16]}"
    for name, before in vars(then).items():
        if before and before != getattr(now, name):
            yield f"  changed since then: {name} ({before[:16]} then, {getattr(now, name)[:16]} now)"


def _again(journey: Journey, job: Job, card: Card, folder: Path, *, was_unfit: bool) -> list[Result]:
    """What the journey makes now; of an input that was refused then, the notice that says so."""
    try:
        volumes = _volumes(journey, job, card, was_unfit=was_unfit)
        findings = journey.read(card, volumes, lambda _: None)
        return journey.encoding.encode(journey.describe(job, card, volumes[0], findings), folder)
    except Unfit as error:
        if not was_unfit:
            raise Refused(f"job {job.id} would not read its images now: {error}") from None
        return [journey.notice(job, card, str(error), folder)]


def _volumes(journey: Journey, job: Job, card: Card, *, was_unfit: bool) -> tuple[Volume, ...]:
    if not journey.instances(job):
        raise Refused(f"the images of job {job.id} are gone from the spool; send the study again")
    try:
        return journey.load(job, card)
    except OverreadError as error:
        if was_unfit and isinstance(error, Unfit):
            raise
        raise Refused(f"the images of job {job.id} are not what it read: {error}") from None


def _compare(
    journey: Journey, results: Sequence[Result], again: Sequence[Result], folder: Path
) -> Iterator[tuple[str, bool]]:
    """A line for each result, and whether it is the same."""
    made = {(r.kind, r.alternative, r.variant): r for r in again}
    for result in results:
        name = " ".join(part for part in (result.kind, result.alternative, result.variant) if part)
        new = made.pop((result.kind, result.alternative, result.variant), None)
        if new is None:
            yield f"  {name}: not made again", False
        else:
            yield from _compare_one(name, result, journey.spool.absolute(result.path), folder / new.path)
    for kind, alternative, variant in made:
        yield f"  {kind} {alternative} {variant}: made now, not then".rstrip(), False


def _compare_one(name: str, result: Result, stored: Path, again: Path) -> Iterator[tuple[str, bool]]:
    from overread.encode.difference import differences

    digest = hashlib.sha256(again.read_bytes()).hexdigest()
    if digest == result.digest:
        intact = stored.exists() and hashlib.sha256(stored.read_bytes()).hexdigest() == digest
        gone = "" if intact else "; what the spool holds of it is gone or damaged, the ledger's digest was compared"
        yield f"  {name}: the same, byte for byte{gone}", True
        return
    if not stored.exists():
        yield f"  {name}: other bytes; the stored file is gone, so that nothing more can be told", False
        return
    told = list(islice(differences(stored, again), MOST_TOLD + 1))
    if not told:
        yield f"  {name}: the same, element by element, though packed differently", True
        return
    yield f"  {name}: differs in", False
    for line in told[:MOST_TOLD]:
        yield f"    {line}", False
    if len(told) > MOST_TOLD:
        yield "    and more", False
