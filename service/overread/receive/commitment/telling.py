"""An N-EVENT-REPORT on an association, whoever opened it, while its own thread may be serving."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from overread.domain.peer import Peer
from overread.receive.commitment.request import PUSH_MODEL, WELL_KNOWN_INSTANCE

PAUSE_S = 5.0
LOOK_S = 0.05


def tell(association: Any, event_type: int, information: Dataset, *, message_id: int, patience_s: float) -> int | None:
    """Send a report and wait for its status; None when the association ends, or is silent for ``patience_s``.

    The association's own thread is held up meanwhile, and gets whatever else the peer says afterwards.
    """
    context = next((c for c in association.accepted_contexts if c.abstract_syntax == PUSH_MODEL), None)
    if context is None or not association.is_established:
        return None
    syntax = context.transfer_syntax[0]
    request = N_EVENT_REPORT()
    request.MessageID, request.EventTypeID = message_id, event_type
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PUSH_MODEL, WELL_KNOWN_INSTANCE
    coded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    request.EventInformation = _stream(coded)
    with _paused(association) as paused:
        if not paused:
            return None
        association.dimse.send_msg(request, context.context_id)
        return _answer(association, message_id, patience_s)


def _stream(coded: bytes | None) -> Any:
    from io import BytesIO

    return BytesIO(coded or b"")


@contextlib.contextmanager
def _paused(association: Any) -> Iterator[bool]:
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + PAUSE_S
    try:
        while not association._is_paused and association.is_established and time.monotonic() < deadline:
            time.sleep(0.005)
        yield bool(association._is_paused and association.is_established)
    finally:
        association._reactor_checkpoint.set()


def _answer(association: Any, message_id: int, patience_s: float) -> int | None:
    others: list[Any] = []
    deadline = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline and association.dul.is_alive():
            try:
                context_id, message = association.dimse.msg_queue.get(timeout=LOOK_S)
            except queue.Empty:
                # Who wants to release, or has aborted, does not answer any more.
                if association.dul.peek_next_pdu() is not None:
                    return None
                continue
            if message is None:
                return None
            if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo == message_id:
                return None if message.Status is None else int(message.Status)
            others.append((context_id, message))
        return None
    finally:
        for other in others:
            association.dimse.msg_queue.put(other)


class _Entity(AE):  # type: ignore[misc,unused-ignore]
    """Remembers its socket, which pynetdicom leaves open when a connection fails."""

    wire: socket.socket | None = None

    def _create_socket(self, *args: Any) -> Any:
        made = super()._create_socket(*args)
        self.wire = made.socket
        return made


@contextlib.contextmanager
def opened(peer: Peer, own_ae_title: str, timeout_s: float) -> Iterator[Any]:
    """A new association with a modality, on which we are the SCP (PS3.4 Section J.3.3); None when there is none."""
    entity = _Entity(own_ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = None
    role = build_role(PUSH_MODEL, scp_role=True)
    association = None
    try:
        with contextlib.suppress(socket.gaierror):
            association = entity.associate(
                peer.host, peer.port, [build_context(PUSH_MODEL)], peer.ae_title, ext_neg=[role]
            )
        yield association if association is not None and association.is_established else None
    finally:
        if association is not None:
            if association.is_established:
                association.release()
            if association.ident is not None:
                association.join(timeout_s)
        if entity.wire is not None:
            entity.wire.close()
