"""One job in one sentence: load → infer → measure → encode → keep for delivery."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.card import Card
from overread.domain.errors import Stumbled, Unfit
from overread.domain.events import StageTimed, Trouble
from overread.domain.findings import Findings
from overread.domain.job import Job
from overread.domain.result import Result
from overread.domain.volume import Volume
from overread.ledger import Ledger, arrivals
from overread.load.align import align
from overread.load.quality import require_fit
from overread.load.series import load
from overread.measure.findings import find
from overread.ports import Encoder, Engine, Herald, Progress, Read
from overread.route.choice import choose, input_digest
from overread.spool import Spool
from overread.spool.frames import SpoolFrames

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Journey:
    """Everything a job meets on its way. Calling it is one attempt.

    With ``tells_unfit`` an input that cannot be read gives a report that says so.
    """

    ledger: Ledger
    spool: Spool
    engine: Engine
    encoders: tuple[Encoder, ...]
    herald: Herald
    tells_unfit: bool = False

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job's input; returns its results, durable in the spool.

        Raises Unfit, CardError or Misplaced when another attempt would end the same, Stumbled when it may not.
        """
        try:
            return self._read(job, card, progress)
        except Unfit as error:
            if self.tells_unfit:
                error.results = self._notice(job, card, str(error))
            raise

    def _read(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        with self._timed(card, "load"):
            volumes = self._load(job, card)
            volume = volumes[0]
        with self._timed(card, "infer"):
            reading = self.engine.read(card, volumes, progress)
        with self._timed(card, "measure"):
            findings = find(reading, volume, card)
        with self._timed(card, "encode"):
            return self._encode(job, card, volume, findings)

    def _load(self, job: Job, card: Card) -> tuple[Volume, ...]:
        if len(card.inputs) > 1:
            return self._load_all(job, card)
        instances = arrivals.series_instances(self.ledger, job.study_uid, job.series_uid)
        volume = load(self.spool, instances, card.accepts, digest=job.input_digest)
        require_fit(volume, card)
        return (volume,)

    def _load_all(self, job: Job, card: Card) -> tuple[Volume, ...]:
        """Every input of the card, found by the rule that planned the job, on the grid of the first."""
        study = arrivals.study_of(self.ledger, job.study_uid, job.revision)
        choices = choose(study, card, SpoolFrames(self.spool.absolute))
        chosen = [choice.best for choice in choices if choice.best is not None]
        if len(chosen) < len(choices) or input_digest(choices) != job.input_digest:
            raise Stumbled("the study has grown since this job was planned; a later revision will supersede it")
        volumes = [
            load(self.spool, v.series.instances, card.accepts, digest=v.stack.digest() if v.stack else v.unfit)
            for v in chosen
        ]
        require_fit(volumes[0], card)
        return align(volumes, [row.name for row in card.inputs])

    def _notice(self, job: Job, card: Card, reason: str) -> list[Result]:
        from overread.encode.unfit import encode_unfit

        instances = arrivals.series_instances(self.ledger, job.study_uid, job.series_uid)
        try:
            with tempfile.TemporaryDirectory(prefix="overread-") as folder:
                first, to = self.spool.absolute(instances[0].path), Path(folder)
                key, made_at = _key(job, card), _stamp(job)
                result = encode_unfit(card, instances, first, reason, to, key=key, made_at=made_at)
                return [self._keep(job, result, to)]
        except Exception as error:
            # The edge to headers that are as odd as the series that could not be read: the reason must not be lost.
            self.herald(Trouble("encode", type(error).__name__))
            return []

    def _encode(self, job: Job, card: Card, volume: Volume, findings: Findings) -> list[Result]:
        read = Read(_key(job, card), _stamp(job), card, volume, findings)
        made: list[Result] = []
        with tempfile.TemporaryDirectory(prefix="overread-") as folder:
            for encoder in self.encoders:
                result = encoder.encode(read, Path(folder), made)
                if result is not None:
                    made.append(result)
            return [self._keep(job, result, Path(folder)) for result in made]

    def _keep(self, job: Job, result: Result, folder: Path) -> Result:
        stored = self.spool.keep_result(job.id, folder / result.path)
        return replace(result, path=stored.path)

    @contextmanager
    def _timed(self, card: Card, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.herald(StageTimed(card.name, stage, time.monotonic() - started))


def _key(job: Job, card: Card) -> str:
    return f"{job.input_digest} {card.name} {card.version} {card.digest}"


def _stamp(job: Job) -> str:
    # When the input was whole, not when this attempt ran: a repeated job must make the same bytes.
    return datetime.fromtimestamp(job.last_at, UTC).isoformat(timespec="seconds")
