"""A STOW-RS server on a free port of loopback, and all that can be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overread.domain.events import Event
from overread.receive.intake import Intake
from overread.receive.receipt import Receipt
from overread.receive.stow.connection import Site
from overread.receive.stow.doorkeeper import AllowList
from overread.receive.stow.limits import Limits
from overread.receive.stow.server import Server
from overread.spool import Spool
from overread.spool.quarantine import Quarantine

from .sending import part10


@dataclass
class Clinic:
    """A running server and what it told."""

    spool: Spool
    quarantine: Quarantine
    server: Server
    arrivals: list[Receipt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    room: bool = True

    @property
    def port(self) -> int:
        return self.server.port

    def said(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def stored(self) -> dict[str, bytes]:
        """By SOP Instance UID, the data set of each file in the spool."""
        found = {}
        for arrival in self.arrivals:
            raw = self.spool.absolute(arrival.stored.path).read_bytes()
            uid = arrival.header.uid("SOPInstanceUID")
            found[uid] = raw[144 + int.from_bytes(raw[140:144], "little") :]
        return found

    def incoming(self) -> list[Path]:
        return list(self.spool.scratch.iterdir())


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Callable[..., Clinic]]:
    """``clinic(**options)``: a server; options are those of Limits, ``doorkeeper``, ``secure``, ``title_of``."""
    running: list[Clinic] = []

    def start(**options: Any) -> Clinic:
        spool = Spool(tmp_path / f"spool-{len(running)}")
        made = Clinic(spool, Quarantine(spool.root / "quarantine"), None)  # type: ignore[arg-type]
        intake = Intake(spool, made.quarantine, lambda: made.room, made.arrivals.append, made.events.append)
        doorkeeper = options.pop("doorkeeper", AllowList([("*", "127.0.0.0/8")], [], "OVERREAD"))
        secure, title_of = options.pop("secure", None), options.pop("title_of", None)
        site = Site("/dicom-web", intake, doorkeeper, Limits(**options), secure, title_of)
        made.server = Server("127.0.0.1", 0, site)
        made.server.start()
        running.append(made)
        return made

    yield start
    for each in running:
        each.server.stop()


@pytest.fixture(scope="session")
def files(ct_bytes: list[tuple[str, bytes]]) -> list[bytes]:
    """Small CT slices as DICOM files."""
    return [part10(uid, data) for uid, data in ct_bytes]
