"""Commands by ``struct`` say and understand exactly what pynetdicom does."""

from __future__ import annotations

import pytest
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE

from overread.receive.upper_layer.codec import (
    EchoRequest,
    StoreRequest,
    command_pdu,
    echo_response,
    read_request,
    store_response,
)
from overread.receive.upper_layer.messages import stock_response

from .raw import CT, VERIFICATION, command, echo_command, pdata, store_command, value


def encoded(message: object, primitive: object) -> bytes:
    """The command set that pynetdicom writes."""
    message.primitive_to_message(primitive)  # type: ignore[attr-defined]
    (pdata_primitive,) = message.encode_msg(7, 16384)  # type: ignore[attr-defined]
    ((_, data),) = pdata_primitive.presentation_data_value_list
    assert data[0] == 3
    return bytes(data[1:])


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "1." + "2" * 62])
@pytest.mark.parametrize(("status", "comment"), [(0, ""), (0xC000, "odd"), (0xA700, "even"), (0xA900, "x" * 64)])
def test_a_store_response_is_the_one_that_pynetdicom_writes(uid: str, status: int, comment: str) -> None:
    request = StoreRequest(65535, CT, uid)
    assert store_response(request, status, comment) == encoded(C_STORE_RSP(), stock_response(request, status, comment))


def test_an_echo_response_is_the_one_that_pynetdicom_writes() -> None:
    response = C_ECHO()
    response.MessageIDBeingRespondedTo, response.AffectedSOPClassUID, response.Status = 9, VERIFICATION, 0
    assert echo_response(EchoRequest(9)) == encoded(C_ECHO_RSP(), response)


def test_a_pdu_holds_a_whole_command() -> None:
    assert command_pdu(7, b"command") == pdata(value(7, 3, b"command"))


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
@pytest.mark.parametrize("originator", [None, "MOVER"])
def test_a_store_request_of_pynetdicom_is_understood(uid: str, originator: str | None) -> None:
    from io import BytesIO

    request = C_STORE()
    request.MessageID, request.Priority = 77, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, uid
    request.MoveOriginatorApplicationEntityTitle = originator
    request.MoveOriginatorMessageID = 5 if originator else None
    request.DataSet = BytesIO(b"x")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    first = next(iter(message.encode_msg(1, 16384)))
    assert read_request(bytes(first.presentation_data_value_list[0][1][1:])) == StoreRequest(77, CT, uid)


def test_an_echo_request_is_understood() -> None:
    assert read_request(echo_command(5)) == EchoRequest(5)


GOOD = {"e0002": CT, "e0100": 1, "e0110": 1, "e0700": 0, "e0800": 1, "e1000": "1.2.3"}


@pytest.mark.parametrize(
    "other",
    [
        command(**{**GOOD, "e0100": 0x20}),
        command(**{**GOOD, "e0800": 0x0101}),
        command(**{**GOOD, "e0002": "é"}),
        command(**{**GOOD, "e9999": "extra"}),
        command(**{k: v for k, v in GOOD.items() if k != "e0110"}),
        command(**{k: v for k, v in GOOD.items() if k != "e0700"}),
        command(**{k: v for k, v in GOOD.items() if k != "e1000"}),
        store_command("1.2.3")[:-1],
        store_command("1.2.3") + b"\0",
        store_command("1.2.3") + store_command("1.2.3")[12:],
        command(e0002=VERIFICATION, e0100=0x30, e0110=1, e0800=1),
        b"",
        b"rubbish",
    ],
)
def test_anything_else_is_left_to_pynetdicom(other: bytes) -> None:
    assert read_request(other) is None


@pytest.mark.parametrize("uid", ["../../etc", "", "1" * 65, "é"])
def test_an_instance_uid_that_is_none_is_understood_so_that_it_can_be_refused(uid: str) -> None:
    """pynetdicom would abort the association; the response does not repeat it."""
    request = read_request(command(**{**GOOD, "e1000": uid}))
    assert isinstance(request, StoreRequest)
    assert request.sop_instance_uid == uid.encode().decode("ascii", "replace")
    assert b"\0\0\0\x10" not in store_response(request, 0x0117, "not valid")
