"""Read-back by DIMSE: the object is fetched by C-GET or C-MOVE and its data set compared with ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from overread.deliver.association import IMPLICIT, Line
from overread.deliver.comparison import compared
from overread.deliver.content import encoded, transfer_syntaxes
from overread.deliver.pdu import Pair
from overread.deliver.proofs import Asker, asked_over, cannot_be_asked, judge, question_for
from overread.domain.command_set import (
    ANSWERED,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RQ,
    CLASS,
    FIELD,
    INSTANCE,
    MESSAGE_ID,
    MOVE_DESTINATION,
    PRIORITY,
    RESPONSE,
    STATUS,
    Value,
)
from overread.domain.delivery import Item, Proven, Standing
from overread.domain.errors import Rejected, Unreachable

GET_SOP_CLASS = "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root Query/Retrieve Information Model - GET
MOVE_SOP_CLASS = "1.2.840.10008.5.1.4.1.2.2.2"  # Study Root Query/Retrieve Information Model - MOVE
_PENDING = (0xFF00, 0xFF01)
_ARRIVES_S = 2.0

Fetched = tuple[bytes, str]  # a data set and its transfer syntax


def by_get(asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
    """Each object is fetched by C-GET and compared."""
    yield from ((item, _verdict(item, fetched)) for item, fetched in got(asker, items))


def got(asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Fetched | None]]:
    """Each object as it comes by C-GET (PS3.4 C.4.3), over one association; None for what it does not have."""
    contexts: dict[Pair, None] = {(GET_SOP_CLASS, IMPLICIT): None}
    for item in items:
        contexts |= dict.fromkeys((item.result.sop_class_uid, s) for s in transfer_syntaxes(item.result))
    roles = sorted({sop_class for sop_class, _ in contexts} - {GET_SOP_CLASS})
    try:
        with asker.lines.line(asker.own_ae_title, list(contexts), roles) as line:
            if (GET_SOP_CLASS, IMPLICIT) not in line.accepted:
                raise cannot_be_asked(asker, "c-get", "it does not offer the service")
            for item in items:
                yield item, _get(asker, line, item)
    except Rejected as error:
        raise error if "configuration fault" in str(error) else cannot_be_asked(asker, "c-get", error) from None


def _get(asker: Asker, line: Line, item: Item) -> Fetched | None:
    command: dict[int, Value] = {CLASS: GET_SOP_CLASS, FIELD: C_GET_RQ, MESSAGE_ID: line.next_id(), PRIORITY: 0}
    identifier = encoded(question_for(item.result), implicit=True)
    line.say(line.accepted[GET_SOP_CLASS, IMPLICIT], command, identifier)
    fetched: Fetched | None = None
    while True:
        message = line.hear(line.call.timeout_s)
        if message.command.get(FIELD) == C_STORE_RQ and message.data is not None:
            if message.command.get(INSTANCE) == item.result.sop_instance_uid:
                fetched = message.data, line.contexts[message.context_id][1]
            keep = {k: message.command[k] for k in (CLASS, INSTANCE) if k in message.command}
            keep |= {FIELD: C_STORE_RQ | RESPONSE, ANSWERED: message.command[MESSAGE_ID], STATUS: 0x0000}
            line.say(message.context_id, keep)
        elif message.status not in _PENDING:
            _judge(asker, message.status, "C-GET")
            return fetched


@dataclass
class Mover:
    """``proof = "c-move"``: the peer is asked to send the object to ``ae_title``, which it knows at our ``port``."""

    ae_title: str
    port: int
    host: str = ""
    _busy: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """Each object is sent to us by C-MOVE and compared."""
        yield from ((item, _verdict(item, fetched)) for item, fetched in self.moved(asker, items))

    def moved(self, asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Fetched | None]]:
        """Each object as it is sent to us by C-MOVE (PS3.4 C.4.2). One thread at a time has the port."""
        with self._busy, self._at_the_port(items) as arrivals, asked_over(asker, MOVE_SOP_CLASS, "c-move") as line:
            for item in items:
                self._move(asker, line, item)
                yield item, arrivals.wait_for(item.result.sop_instance_uid)

    def _move(self, asker: Asker, line: Line, item: Item) -> None:
        command: dict[int, Value] = {CLASS: MOVE_SOP_CLASS, FIELD: C_MOVE_RQ, MESSAGE_ID: line.next_id(), PRIORITY: 0}
        identifier = encoded(question_for(item.result), implicit=True)
        answer = line.ask(
            line.accepted[MOVE_SOP_CLASS, IMPLICIT], {**command, MOVE_DESTINATION: self.ae_title}, identifier
        )
        while answer.status in _PENDING:
            answer = line.expect_status(line.call.timeout_s)
        if answer.status == 0xA801:
            told = f"it does not know the move destination {self.ae_title}: add it there with our port {self.port}"
            raise cannot_be_asked(asker, "c-move", told)
        _judge(asker, answer.status, "C-MOVE")

    @contextmanager
    def _at_the_port(self, items: Sequence[Item]) -> Iterator[_Arrivals]:
        from pynetdicom import AE, evt

        entity, arrivals = AE(self.ae_title), _Arrivals()
        for item in items:
            entity.add_supported_context(item.result.sop_class_uid, transfer_syntaxes(item.result))
        try:
            entity.start_server((self.host, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, arrivals.take)])
        except OSError as error:
            raise Unreachable(f"port {self.port} of proof c-move cannot be listened on: {error.strerror}") from None
        try:
            yield arrivals
        finally:
            entity.shutdown()


class _Arrivals:
    """What a C-MOVE brings."""

    def __init__(self) -> None:
        self._fetched: dict[str, Fetched] = {}
        self._changed = threading.Condition()

    def take(self, event: Any) -> int:
        with self._changed:
            content = event.encoded_dataset(include_meta=False)
            self._fetched[str(event.request.AffectedSOPInstanceUID)] = content, str(event.context.transfer_syntax)
            self._changed.notify_all()
        return 0x0000

    def wait_for(self, uid: str) -> Fetched | None:
        deadline = time.monotonic() + _ARRIVES_S
        with self._changed:
            while uid not in self._fetched and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._fetched.pop(uid, None)


def _judge(asker: Asker, status: int | None, service: str) -> None:
    # What was not sent is missing, whatever it calls that: with warnings (0xB000), or "unable to process" (0xCxxx).
    if status is not None and status >> 12 not in (0xB, 0xC):
        judge(asker, status, service)


def _verdict(item: Item, fetched: Fetched | None) -> Proven:
    if fetched is None:
        return Proven(Standing.MISSING, "it was taken but is not given back")
    return compared(item, *fetched)
