"""Bodies in chunks, over sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from overread.receive.stow.body import Chunked, CutOff, TooMuch
from overread.receive.stow.wire import TooSlow, Wire

ROOM = 64 << 10
TWO = b"3\r\nabc\r\n4\r\ndefg\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Chunked]]:
    """The sender's socket, and a body of ten bytes at most on the other side."""
    sender, receiver = socket.socketpair()
    wire = Wire(receiver, stall_s=0.2, least_bytes_s=0.0)
    wire.begin_body()
    with sender, receiver:
        yield sender, Chunked(wire, 10)


def test_chunks_at_hand_come_together(ends: tuple[socket.socket, Chunked]) -> None:
    sender, body = ends
    sender.sendall(TWO + b"0\r\n\r\n")
    room = memoryview(bytearray(ROOM))
    assert (body.read_into(room), bytes(room[:7]), body.complete) == (7, b"abcdefg", True)


@pytest.mark.parametrize(
    ("next_chunk", "closes", "fault"),
    [
        (b"4\r\nhijk\r\n", False, TooMuch),
        (b"x\r\nhijk\r\n", False, CutOff),
        (b"4", True, CutOff),
        (b"4", False, TooSlow),
    ],
    ids=["too much", "no size", "broken off", "stalled"],
)
def test_what_came_before_a_fault_is_handed_out(
    ends: tuple[socket.socket, Chunked], next_chunk: bytes, closes: bool, fault: type[Exception]
) -> None:
    """All of it in one segment, as a fast sender or a slow receiver has it: no byte before the fault may be lost."""
    sender, body = ends
    sender.sendall(TWO + next_chunk)
    if closes:
        sender.close()
    room = memoryview(bytearray(ROOM))
    assert (body.read_into(room), bytes(room[:7])) == (7, b"abcdefg")
    for _ in range(2):
        with pytest.raises(fault):
            body.read_into(room)
