"""What fragments amount to: a C-STORE served in place, a C-ECHO answered, anything else handed to pynetdicom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import P_DATA

from overread.receive.upper_layer.codec import (
    CLASS,
    INSTANCE,
    MESSAGE_ID,
    EchoRequest,
    StoreRequest,
    command_pdu,
    echo_response,
    read_request,
    store_response,
)
from overread.receive.upper_layer.layers import Layers
from overread.receive.upper_layer.pdata import COMMAND, LAST, Fragment, Malformed

LONGEST_COMMAND_BYTES = 1 << 16


class Reception(Protocol):
    """One data set as it comes. No method raises."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """The next bytes of the data set; they are not there any more when this returns."""

    def finish(self) -> tuple[int, str]:
        """The data set is whole: the C-STORE status, and an Error Comment or nothing."""

    def abandon(self) -> None:
        """The rest will not come."""


@dataclass(frozen=True)
class Bounds:
    """Where it ends by A-ABORT: a data set that goes on and on, and a message that pynetdicom gathers in memory."""

    data_set_bytes: int = 1 << 62
    message_bytes: int = 1 << 26


Begin = Callable[[Any, StoreRequest, str], Reception]


class Messages:
    """Takes the fragments of one association, on its network thread.

    ``begin`` is given the association, a request and the transfer syntax of its presentation context.
    """

    def __init__(self, association: Any, layers: Layers, begin: Begin, bounds: Bounds) -> None:
        self._association = association
        self._layers = layers
        self._begin = begin
        self._command = bytearray()
        self._value = bytearray()
        self._pieces: list[bytes | memoryview] = []
        self._serving: tuple[int, StoreRequest, Reception] | None = None
        self._bounds = bounds
        self._taken = 0  # bytes of the data set that is coming

    def take(self, fragments: Sequence[Fragment]) -> None:
        """Take the fragments that came at once; raises Malformed when they make no sense."""
        for fragment in fragments:
            if self._serving:
                self._take_data(self._serving[2], fragment)
            elif self._association.dimse.message is None and fragment.control & COMMAND:
                self._take_command(fragment)
            else:
                self._hand_over(fragment)
        if self._serving and self._layers.stream and self._pieces:
            self._serving[2].write(self._pieces)
            self._pieces.clear()

    def abandon(self) -> None:
        """The connection has ended; what was on its way is dropped."""
        if self._serving:
            self._serving[2].abandon()
            self._serving = None

    def _take_command(self, fragment: Fragment) -> None:
        self._command += fragment.piece
        if len(self._command) > LONGEST_COMMAND_BYTES:
            raise Malformed("a command set that does not end")
        if fragment.ends and fragment.control & LAST:
            command = bytes(self._command)
            self._command.clear()
            self._serve(fragment.context_id, command)

    def _serve(self, context_id: int, command: bytes) -> None:
        context = self._association._accepted_cx.get(context_id)
        request = self._request(command) if self._layers.inline and context else None
        if isinstance(request, EchoRequest):
            self._answer(command_pdu(context_id, echo_response(request)))
        elif request is not None and request.sop_class_uid == context.abstract_syntax:
            reception = self._begin(self._association, request, str(context.transfer_syntax[0]))
            self._serving, self._taken = (context_id, request, reception), 0
        else:
            self._receive(context_id, COMMAND | LAST, command)

    def _request(self, command: bytes) -> StoreRequest | EchoRequest | None:
        request = read_request(command)
        if self._layers.codec or request is None:
            return request
        if isinstance(request, EchoRequest):
            return None
        values = decode(BytesIO(command), True, True)
        return StoreRequest(
            values[0, MESSAGE_ID].value, str(values[0, CLASS].value), str(values[0, INSTANCE].value)
        )

    def _take_data(self, reception: Reception, fragment: Fragment) -> None:
        if fragment.control & COMMAND:
            raise Malformed("a command set in the middle of a data set")
        self._taken += len(fragment.piece)
        if self._taken > self._bounds.data_set_bytes:
            raise Malformed("a data set that does not end")
        self._pieces.append(fragment.piece if self._layers.stream else bytes(fragment.piece))
        if fragment.ends and fragment.control & LAST:
            reception.write(self._pieces)
            self._pieces.clear()
            self._finish()

    def _finish(self) -> None:
        assert self._serving is not None
        context_id, request, reception = self._serving
        self._serving = None
        status, comment = reception.finish()
        if self._layers.codec:
            self._answer(command_pdu(context_id, store_response(request, status, comment)))
        else:
            self._association.dimse.send_msg(stock_response(request, status, comment), context_id)

    def _answer(self, pdu: bytes) -> None:
        if self._association.dul.socket is not None and self._association.dul.socket.socket is not None:
            self._association.dul.socket.send(pdu)

    def _hand_over(self, fragment: Fragment) -> None:
        # A data set that pynetdicom gathers is written where pynetdicom would write it, without the objects between.
        message = self._association.dimse.message
        self._taken = 0 if message is None else self._taken + len(fragment.piece)
        if self._taken > self._bounds.message_bytes:
            raise Malformed("a message that does not end")
        if message is not None and not fragment.control & COMMAND and message._data_set_file is None:
            message.data_set.write(fragment.piece)
        else:
            self._value += fragment.piece
        if fragment.ends:
            value = bytes(self._value)
            self._value.clear()
            self._receive(fragment.context_id, fragment.control, value)

    def _receive(self, context_id: int, control: int, value: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes([control]) + value))
        self._association.dimse.receive_primitive(primitive)


def stock_response(request: StoreRequest, status: int, comment: str) -> C_STORE:
    """The C-STORE response primitive that pynetdicom would have made."""
    response = C_STORE()
    response.MessageIDBeingRespondedTo = request.message_id
    response.AffectedSOPClassUID = request.sop_class_uid
    response.AffectedSOPInstanceUID = request.sop_instance_uid
    response.Status = status
    if comment:
        response.ErrorComment = comment
    return response
