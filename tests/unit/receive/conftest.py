"""A listener on a free port of loopback, and a sender that puts bytes on the wire as they are."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification

from overread.domain.events import Event
from overread.receive.admission import Admission, Row
from overread.receive.intake import Intake
from overread.receive.listener import Door, Listener
from overread.receive.receipt import Receipt
from overread.receive.tls import Tls
from overread.receive.upper_layer import FAST
from overread.spool import Spool
from overread.spool.limits import LIMITS
from overread.spool.quarantine import Quarantine

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass
class House:
    """A running listener and everything that can be seen of it."""

    spool: Spool
    listener: Listener
    arrivals: list[Receipt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    room: bool = True
    quarantine: Quarantine | None = None

    def said(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def stored(self) -> list[str]:
        return list(self.spool.instance_paths())


def until(true: Callable[[], object], patience_s: float = 5.0) -> bool:
    """Wait until something becomes true; False when it does not."""
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    """``house(**options)``: a listener; the options are those of Admission and Door."""
    running: list[House] = []
    monkeypatch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.02,))  # stopping waits for one poll

    def start(**options: Any) -> House:
        spool = Spool(tmp_path / f"spool-{len(running)}")
        made = House(spool, None)  # type: ignore[arg-type]
        admission = Admission(
            options.get("allow", [Row("*", "127.0.0.0/8", max_associations=1000)]),
            options.get("called_ae", "OVERREAD"),
            options.get("max_associations", 10),
            options.get("room", lambda: made.room),
        )
        keys = ("max_connections", "max_connections_per_address", "max_message_bytes")
        named = {key: options[key] for key in keys if key in options}
        network_s = options.get("network_timeout_s", 5.0)
        door = Door("OVERREAD", "127.0.0.1", options.get("port", 0), 16384, 5.0, 5.0, network_s, **named)

        def take(receipt: Receipt) -> None:
            made.arrivals.append(receipt)
            made.events.append(receipt.event())

        keep = options.get("keep", take)
        quarantine = Quarantine(spool.root / "quarantine")
        made.quarantine = quarantine
        intake = Intake(
            spool, quarantine, admission.has_room, keep, made.events.append, limits=options.get("limits", LIMITS)
        )
        tls = Tls(options["terms"], made.events.append, admission.ae_title_of) if "terms" in options else None
        layers, asked = options.get("layers", FAST), {k: options.get(k) for k in ("commitment", "reports")}
        made.listener = Listener(door, admission, intake, made.events.append, layers, tls=tls, **asked)
        made.listener.start()
        running.append(made)
        return made

    yield start
    for each in running:
        each.listener.stop()


@pytest.fixture
def call() -> Iterator[Callable[..., Association]]:
    """``call(house, …)``: an association with it, established or rejected."""
    called: list[Association] = []
    wires: list[socket.socket] = []

    def associate(
        house: House,
        contexts: list[tuple[str, str]] | None = None,
        *,
        calling: str = "CT1",
        ae_title: str = "OVERREAD",
    ) -> Association:
        entity = AE(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(Verification)
        for sop_class, syntax in contexts if contexts is not None else [(CT, EXPLICIT)]:
            entity.add_requested_context(sop_class, syntax)
        association = entity.associate("127.0.0.1", house.listener.port, ae_title=ae_title)
        called.append(association)
        wire = association.dul.socket and association.dul.socket.socket
        if wire is not None:
            wires.append(wire)
        return association

    yield associate
    for association in called:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join(5)
    for wire in wires:
        wire.close()  # pynetdicom leaves it open when the peer hung up


_sending = threading.Lock()


@pytest.fixture
def store() -> Callable[..., int]:
    """``store(association, data, uid)``: send a data set as it is; returns the status, -1 when none came."""

    def send(association: Association, data: bytes, uid: str, sop_class: str = CT, syntax: str = EXPLICIT) -> int:
        context = next(
            c for c in association.accepted_contexts if (c.abstract_syntax, c.transfer_syntax[0]) == (sop_class, syntax)
        )
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, uid
        request.DataSet = BytesIO(data)
        with _sending:
            association._reactor_checkpoint.clear()
            until(lambda: association._is_paused)
            association.dimse.send_msg(request, context.context_id)
            _, answer = association.dimse.get_msg(block=True)
            association._reactor_checkpoint.set()
        return -1 if answer is None else int(answer.Status)

    return send


@pytest.fixture(scope="session")
def ct_bytes(tiny_ct: list[Path]) -> list[tuple[str, bytes]]:
    """(SOP Instance UID, encoded data set) of small CT slices."""
    import pydicom

    found = []
    for path in tiny_ct[1:]:
        raw = path.read_bytes()
        length = int.from_bytes(raw[140:144], "little")
        found.append((str(pydicom.dcmread(path).SOPInstanceUID), raw[144 + length :]))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this room wait for what a peer says in time: nothing may run beside them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.alone)
