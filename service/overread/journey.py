"""One job in one sentence: load → infer → measure → encode → keep for delivery."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.called import STAT
from overread.domain.card import Card
from overread.domain.errors import Misplaced, Stumbled, Unfit
from overread.domain.events import StageTimed, Trouble
from overread.domain.findings import Findings
from overread.domain.job import Job
from overread.domain.pace import Pace
from overread.domain.provenance import Provenance, Style
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.domain.variant import FLOOR
from overread.domain.volume import Volume
from overread.ledger import Ledger, arrivals
from overread.ledger.replaced import superseded
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
class Encoding:
    """What is made of findings: by which encoders, in which variants and style; ``roots`` as in ``ports.Read``."""

    encoders: tuple[Encoder, ...]
    variants: tuple[str, ...] = (FLOOR,)
    style: Style = field(default_factory=Style)
    roots: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def withdraws(self) -> bool:
        """Whether results that are replaced are taken back, for good."""
        return any(encoder.kind == "rejection" for encoder in self.encoders)

    def encode(self, read: Read, folder: Path, beat: Callable[[], None] = lambda: None) -> list[Result]:
        """Write everything there is to say into ``folder``; raises Unfit or Misplaced, or what ``beat`` raises."""
        made: list[Result] = []
        for encoder in self.encoders:
            beat()
            made.extend(encoder.encode(read, folder, made))
        return made


@dataclass(frozen=True)
class Journey:
    """Everything a job meets on its way. Calling it is one attempt.

    With ``tells_unfit`` an input that cannot be read gives a report that says so.
    """

    ledger: Ledger
    spool: Spool
    engine: Engine
    encoding: Encoding
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
            volumes = self.load(job, card)
        progress(0.0)
        findings = self.read(card, volumes, progress, _pace(job))
        with self._timed(card, "encode"):
            reading = self.describe(job, card, volumes[0], findings)
            return self._written(job, lambda folder: self.encoding.encode(reading, folder, lambda: progress(1.0)))

    def read(self, card: Card, volumes: Sequence[Volume], progress: Progress, pace: Pace = Pace.USUAL) -> Findings:
        """What the model of ``card`` finds in ``volumes``, on the grid of the first."""
        with self._timed(card, "infer"):
            reading = self.engine.read(card, volumes, progress, pace)
        progress(1.0)
        with self._timed(card, "measure"):
            return find(reading, volumes[0], card)

    def instances(self, job: Job) -> list[Instance]:
        """The images of the series that ``job`` is about, as far as they are still there."""
        return arrivals.series_instances(self.ledger, job.study_uid, job.series_uid)

    def load(self, job: Job, card: Card) -> tuple[Volume, ...]:
        """What ``job`` is about: a volume for each input of the card, all on the grid of the first.

        Raises Stumbled when the spool holds something else by now, Unfit when the model must not read it.
        """
        if len(card.inputs) > 1:
            return self._load_all(job, card)
        volume = load(self.spool, self.instances(job), card.accepts, digest=job.input_digest)
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

    def notice(self, job: Job, card: Card, reason: str, folder: Path) -> Result:
        """Write into ``folder`` that ``job`` could not be read, and why."""
        from overread.encode.unfit import NOTHING, encode_unfit, unread

        instances = self.instances(job)
        unplaced = unread(instances, self.spool.absolute(instances[0].path))
        return encode_unfit(self.describe(job, card, unplaced, NOTHING), reason, folder)

    def _notice(self, job: Job, card: Card, reason: str) -> list[Result]:
        try:
            return self._written(job, lambda folder: [self.notice(job, card, reason, folder)])
        except Exception as error:
            # The edge to headers that are as odd as the series that could not be read: the reason must not be lost.
            self.herald(Trouble("encode", type(error).__name__))
            return []

    def _written(self, job: Job, write: Callable[[Path], list[Result]]) -> list[Result]:
        """What ``write`` makes in the folder that it is given, kept in the spool."""
        with tempfile.TemporaryDirectory(prefix="overread-") as folder:
            try:
                made = write(Path(folder))
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
            roots=self.encoding.roots,
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


def _pace(job: Job) -> Pace:
    if job.urgency == STAT:
        return Pace.URGENT
    return Pace.OVERDUE if job.overdue else Pace.USUAL


def _stamp(job: Job) -> str:
    # When the input was whole, not when this attempt ran: a repeated job must make the same bytes.
    return datetime.fromtimestamp(job.last_at, UTC).isoformat(timespec="seconds")
