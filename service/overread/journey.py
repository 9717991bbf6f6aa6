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
from overread.domain.errors import Stumbled
from overread.domain.events import StageTimed
from overread.domain.findings import Findings
from overread.domain.job import Job
from overread.domain.result import Result
from overread.domain.volume import Volume
from overread.ledger import Ledger, arrivals
from overread.load.series import load
from overread.measure.findings import find
from overread.ports import Encoder, Engine, Herald, Progress, Read
from overread.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Journey:
    """Everything a job meets on its way. Calling it is one attempt."""

    ledger: Ledger
    spool: Spool
    engine: Engine
    encoders: tuple[Encoder, ...]
    herald: Herald

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job's input; returns its results, durable in the spool.

        Raises Unfit, CardError or Misplaced when another attempt would end the same, Stumbled when it may not.
        """
        with self._timed(card, "load"):
            volume = self._load(job)
        with self._timed(card, "infer"):
            reading = self.engine.read(card, (volume,), progress)
        with self._timed(card, "measure"):
            findings = find(reading, volume, card)
        with self._timed(card, "encode"):
            return self._encode(job, card, volume, findings)

    def _load(self, job: Job) -> Volume:
        instances = arrivals.series_instances(self.ledger, job.study_uid, job.series_uid)
        volume = load(self.spool, instances)
        if volume.stack.digest() != job.input_digest:
            raise Stumbled("the series has grown since this job was planned; a later revision will supersede it")
        return volume

    def _encode(self, job: Job, card: Card, volume: Volume, findings: Findings) -> list[Result]:
        key = f"{job.input_digest} {card.name} {card.version} {card.digest}"
        read = Read(key, _stamp(job), card, volume, findings)
        made: list[Result] = []
        with tempfile.TemporaryDirectory(prefix="overread-") as folder:
            for encoder in self.encoders:
                made.extend(encoder.encode(read, Path(folder), made))
            return [self._keep(job, result, Path(folder)) for result in made]

    def _keep(self, job: Job, result: Result, folder: Path) -> Result:
        stored = self.spool.keep_result(job.id, folder / result.path)
        return replace(result, path=stored.path)

    @contextmanager
    def _timed(self, card: Card, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.herald(StageTimed(card.name, stage, time.monotonic() - started))


def _stamp(job: Job) -> str:
    # When the input was whole, not when this attempt ran: a repeated job must make the same bytes.
    return datetime.fromtimestamp(job.last_at, UTC).isoformat(timespec="seconds")
