"""The doors between rooms: a handful of Protocols."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card, Label
from overread.domain.delivery import Item, Proven, Told
from overread.domain.events import Event
from overread.domain.findings import Findings, Measurement
from overread.domain.job import Job
from overread.domain.pace import Pace
from overread.domain.provenance import Provenance, Style
from overread.domain.reading import Reading
from overread.domain.result import Result
from overread.domain.variant import FLOOR
from overread.domain.volume import Volume
from overread.domain.warm import Warm

Herald = Callable[[Event], None]
Progress = Callable[[float], None]


class Engine(Protocol):
    """Runs models. One call is one attempt."""

    def read(self, card: Card, volumes: Sequence[Volume], progress: Progress, pace: Pace = Pace.USUAL) -> Reading:
        """Read ``volumes`` with the model of ``card``: one volume for each row of ``card.inputs``, all on one grid.

        Returns what the model saw, on the grid of the first. ``progress`` is told 0 … 1, several times a second; what
        it raises (Canceled) ends the reading. Raises WorkerLost when the attempt died, Outranked when it made way for
        an URGENT one, Unfit or CardError when another attempt would end the same.
        """


class Executor(Protocol):
    """Where jobs are read: on this machine, or on a cluster. Calling it is one attempt. Used by several threads."""

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job; returns its results, durable in the spool.

        ``progress`` is called several times a second, and what it raises (Canceled) ends the attempt. Raises what
        ``journey`` raises, and WorkerLost when the place at which it ran is gone.
        """

    def warm(self, cards: Sequence[Card], count: int) -> None:
        """Load models before they are needed, each so many times."""

    def crowded(self) -> Collection[str]:
        """Names of models for which there is no room now."""

    def standing(self) -> Sequence[Warm]:
        """How the models that are loaded here stand."""

    def close(self) -> None:
        """End everything that runs."""


class Measurer(Protocol):
    """Measures one segment."""

    def __call__(self, volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:
        """``mask`` (slices, rows, columns) bool on the volume's grid, never empty."""


@dataclass(frozen=True)
class Read:
    """Everything an encoder may need about one finished reading.

    ``key`` names input, model and settings: equal keys give equal UIDs. ``made_at`` is the time stamp for the objects,
    ISO 8601 in UTC, fixed when the input became complete, so that a repeated job makes the same bytes. ``variants`` are
    the ways (``domain.variant``) in which segmentations are wanted, each once. ``superseded`` are the results of the
    model's earlier readings of the study, which this one replaces, the latest first. ``roots``: which kinds of results
    a report of one kind lists, as the root of the result tree (``domain.result.roots``).
    """

    key: str
    made_at: str
    card: Card
    volume: Volume
    findings: Findings
    variants: tuple[str, ...] = (FLOOR,)
    style: Style = field(default_factory=Style)
    provenance: Provenance = field(default_factory=Provenance)
    superseded: tuple[Result, ...] = ()
    roots: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Encoder(Protocol):
    """Turns findings into DICOM objects of one kind, such as one segmentation for each layer of the mask.

    ``sop_class_uid`` is that of most of them.
    """

    kind: str
    sop_class_uid: str

    def encode(self, read: Read, folder: Path, earlier: Sequence[Result]) -> Sequence[Result]:
        """Write Part 10 files into ``folder`` and describe them (``path`` relative to ``folder``).

        ``earlier`` are the results already made of this reading, which these may refer to. Empty when this kind has
        nothing to say, such as a segmentation without segments. Raises Misplaced when the gate does not pass.
        """


class Destination(Protocol):
    """Where results go. Used by several threads at once.

    One that keeps connections open may have a method ``rest()``, which is called when nothing is due, and ``close()``.
    Where ``unasked`` is true its word is taken, and what was sent is ACCEPTED without being asked for.
    """

    name: str

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        """Send the objects in their order, and say of each what the destination said, as soon as it has.

        Of results that are variants of one another one goes (``domain.result.choose``); those that are PASSED_OVER
        are told before anything is sent. It may end early after a BUSY: what is not told of was not sent. Raises
        Unreachable (try later): the first one that was not told of may have been stored then, unless it is a
        NoConnection.
        """

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """Ask the destination itself for each object.

        Raises Unreachable, or Rejected when it cannot be asked at all."""

    def check(self) -> str:
        """One line on whether the destination answers; raises Unreachable, or Rejected when it is there but something
        is to be mended, with the reason and the remedy."""
