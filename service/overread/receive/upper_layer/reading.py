"""The network thread's reading: P-DATA goes to ``Messages`` as it comes, every other PDU the stock way."""

from __future__ import annotations

from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from overread.receive.upper_layer.codec import EchoRequest, StoreRequest, echo_response, store_response
from overread.receive.upper_layer.messages import Messages
from overread.receive.upper_layer.pdata import COMMAND, LAST, Cutter, Malformed
from overread.receive.upper_layer.reactor import WaitingDUL

TRANSFER, CLOSING = "Sta6", "Sta13"


class _Cutting(DULServiceProvider):  # type: ignore[misc]
    """Overrides of the fragments layer; works with a socket that is a ``WireSocket`` and streams."""

    _cutter: Cutter
    _messages: Messages

    def equip_fragments(self, messages: Messages, longest_pdu_bytes: int) -> None:
        """Make a stock provider one of these, before its thread starts."""
        self._cutter, self._messages = Cutter(longest_pdu_bytes), messages

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._messages.abandon()

    def _read_pdu_data(self) -> None:
        if self.state_machine.current_state == TRANSFER:
            self._read_fragments()
        elif self._cutter.between_pdus:
            super()._read_pdu_data()
        else:
            self._skip()

    def _read_fragments(self) -> None:
        wire: Any = self.socket
        try:
            used, fragments = self._cutter.cut(wire.view())
            self._messages.take(fragments)
        except Malformed:
            self.event_queue.put("Evt19")
            self._skip()
            return
        wire.take(used)
        wire.inside = not self._cutter.between_pdus
        if not wire.inside and not used:
            super()._read_pdu_data()
        elif wire.inside and wire.over:
            self.event_queue.put("Evt17")

    def _skip(self) -> None:
        # What comes behind bytes that made no sense, or in a PDU whose association has ended, is not wanted.
        self.socket.take(len(self.socket.view()))
        if self.socket.over:
            self.event_queue.put("Evt17")


class CuttingDUL(_Cutting):
    """Fragments, on pynetdicom's own reactor."""


class WaitingCuttingDUL(_Cutting, WaitingDUL):
    """Fragments, on the reactor that waits."""


class StructDIMSE(DIMSEServiceProvider):  # type: ignore[misc]
    """Sends C-STORE and C-ECHO responses as the codec writes them."""

    def send_msg(self, primitive: Any, context_id: int) -> None:
        command = _response(primitive)
        if command is None or len(command) + 6 > (self.maximum_pdu_size or len(command) + 6):
            super().send_msg(primitive, context_id)
            return
        pdata = P_DATA()
        pdata.presentation_data_value_list.append((context_id, bytes([COMMAND | LAST]) + command))
        self.dul.send_pdu(pdata)


def _response(primitive: Any) -> bytes | None:
    """The command set of a response that the codec knows; None for anything else."""
    answered = primitive.MessageIDBeingRespondedTo
    if answered is None or getattr(primitive, "OffendingElement", None):
        return None
    if isinstance(primitive, C_ECHO) and primitive.Status == 0 and not getattr(primitive, "ErrorComment", None):
        return echo_response(EchoRequest(answered))
    if isinstance(primitive, C_STORE) and primitive.Status is not None:
        request = StoreRequest(answered, str(primitive.AffectedSOPClassUID), str(primitive.AffectedSOPInstanceUID))
        return store_response(request, primitive.Status, str(primitive.ErrorComment or ""))
    return None
