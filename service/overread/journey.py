"""One job in one sentence: load → infer → measure → encode → keep for delivery."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.card import Card
from overread.domain.errors import Misplaced, Stumbled
from overread.domain.events import StageTimed
from overread.domain.findings import Findings
from overread.domain.job import Job
from overread.domain.provenance import Provenance, Style
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.domain.variant import FLOOR
from overread.domain.volume import Volume
from overread.ledger import Ledger, arrivals
from overread.ledger.replaced import superseded
from overread.load.series import load
from overread.measure.findings import find
from overread.ports import Encoder, Engine, Herald, Progress, Read
from overread.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Encoding:
    """What is made of findings: by which encoders, in which variants, in which style."""

    encoders: tuple[Encoder, ...]
    variants: tuple[str, ...] = (FLOOR,)
    style: Style = field(default_factory=Style)

    @property
    def withdraws(self) -> bool:
        """Whether results that are replaced are taken back, for good."""
        return any(encoder.kind == "rejection" for encoder in self.encoders)

    def encode(self, read: Read, folder: Path) -> list[Result]:
        """Write everything there is to say into ``folder``; raises Unfit or Misplaced."""
        made: list[Result] = []
        for encoder in self.encoders:
            made.extend(encoder.encode(read, folder, made))
        return made


@dataclass(frozen=True)
class Journey:
    """Everything a job meets on its way. Calling it is one attempt."""

    ledger: Ledger
    spool: Spool
    engine: Engine
    encoding: Encoding
    herald: Herald

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job's input; returns its results, durable in the spool.

        Raises Unfit, CardError or Misplaced when another attempt would end the same, Stumbled when it may not.
        """
        with self._timed(card, "load"):
            volume = self.load(job)
        findings = self.read(card, volume, progress)
        with self._timed(card, "encode"):
            return self._encode(job, card, volume, findings)

    def read(self, card: Card, volume: Volume, progress: Progress) -> Findings:
        """What the model of ``card`` finds in ``volume``."""
        with self._timed(card, "infer"):
            reading = self.engine.read(card, (volume,), progress)
        with self._timed(card, "measure"):
            return find(reading, volume, card)

    def instances(self, job: Job) -> list[Instance]:
        """The images of the series that ``job`` is about, as far as they are still there."""
        return arrivals.series_instances(self.ledger, job.study_uid, job.series_uid)

    def load(self, job: Job) -> Volume:
        """The volume that ``job`` is about; raises Stumbled when the spool holds another by now, Unfit when none."""
        volume = load(self.spool, self.instances(job))
        if volume.stack.digest() != job.input_digest:
            raise Stumbled("the series has grown since this job was planned; a later revision will supersede it")
        return volume

    def _encode(self, job: Job, card: Card, volume: Volume, findings: Findings) -> list[Result]:
        read = self.describe(job, card, volume, findings)
        with tempfile.TemporaryDirectory(prefix="overread-") as folder:
            try:
                made = self.encoding.encode(read, Path(folder))
            except Misplaced as error:
                raise self._kept(job, error) from None
            return [self._keep(job, result, Path(folder)) for result in made]

    def describe(self, job: Job, card: Card, volume: Volume, findings: Findings) -> Read:
        """Everything that encoders need about a job's reading."""
        style = self.encoding.style
        origin = Provenance(card.weights_sha256, card.digest, job.input_digest, style.digest())
        replaced = superseded(self.ledger, job)
        key = f"{job.input_digest} {card.name} {card.version} {card.digest}"
        if style != Style():
            key += f" {origin.settings}"
        if self.encoding.withdraws and replaced.again:
            key += f" again {replaced.again}"  # what was taken back for good cannot come back under its UIDs
        return Read(
            key,
            _stamp(job),
            card,
            volume,
            findings,
            variants=self.encoding.variants,
            style=style,
            provenance=origin,
            superseded=replaced.results,
        )

    def _keep(self, job: Job, result: Result, folder: Path) -> Result:
        stored = self.spool.keep_result(job.id, folder / result.path)
        return replace(result, path=stored.path)

    def _kept(self, job: Job, error: Misplaced) -> Misplaced:
        """The refusal, its object kept for a person to look at, where nothing is sent from."""
        if error.file is None or not error.file.exists():
            return error
        refused = error.file.rename(error.file.with_suffix(".refused"))
        return Misplaced(f"{error}; kept as {self.spool.keep_result(job.id, refused).path}")

    @contextmanager
    def _timed(self, card: Card, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.herald(StageTimed(card.name, stage, time.monotonic() - started))


def _stamp(job: Job) -> str:
    # When the input was whole, not when this attempt ran: a repeated job must make the same bytes.
    return datetime.fromtimestamp(job.last_at, UTC).isoformat(timespec="seconds")
