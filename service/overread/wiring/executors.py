"""Where jobs are read: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overread import wiring
from overread.domain.card import Card
from overread.domain.errors import ConfigError
from overread.domain.job import Job
from overread.domain.result import Result
from overread.domain.warm import Warm
from overread.ports import Executor, Herald, Progress
from overread.settings import Settings

if TYPE_CHECKING:
    from overread.infer.pool import WorkerPool
    from overread.journey import Journey
    from overread.ledger import Ledger


def executor(settings: Settings, books: Ledger, models: Sequence[Card], herald: Herald) -> Executor:
    """The one that the settings name; raises ConfigError when it cannot be had."""
    if settings.schedule.executor == "local":
        return local(settings, books, models, herald)
    if not settings.ledger.startswith("postgresql"):
        raise ConfigError('schedule.executor "ray" needs PostgreSQL as ledger: every node of the cluster reads it')
    try:
        from overread.wiring.cluster import Cluster
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"schedule.executor is ray, and {error.name} is not installed: pip install 'overread[ray]'"
        ) from error
    return Cluster(settings, herald)


def local(
    settings: Settings, books: Ledger, models: Sequence[Card], herald: Herald, folder: Path | None = None
) -> Local:
    """Processes of this machine; ``folder`` holds what they write (default: in the data folder)."""
    from overread.journey import Journey

    pool = wiring.pool(settings, herald, folder)
    encoding, tells = wiring.encoding(settings), wiring.tells_unfit(settings)
    journey = Journey(books, wiring.spool(settings), pool, encoding, herald, tells_unfit=tells)
    return Local(journey, pool, tuple(models))


@dataclass(frozen=True)
class Local:
    """An ``Executor`` on this machine."""

    journey: Journey
    pool: WorkerPool
    models: tuple[Card, ...]

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job here."""
        return self.journey(job, card, progress)

    def warm(self, cards: Sequence[Card], count: int) -> None:
        """Load models, each into so many processes."""
        self.pool.warm_all(cards, count)

    def crowded(self) -> Collection[str]:
        """Models without room."""
        return self.pool.refused(self.models)

    def standing(self) -> Sequence[Warm]:
        """The warm models."""
        return self.pool.warm_models()

    def close(self) -> None:
        """End all processes."""
        self.pool.close()
