"""What a model's process says: understood when it is a message, whole and of the right kinds; else the end of it."""

from __future__ import annotations

import json
import pickle
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

from overread.domain.errors import CardError
from overread.domain.reading import Box, Likelihood, Reading
from overread.infer import blocks
from overread.infer.cage import Walls
from overread.infer.frames import LENGTH, MOST, Inbox, Nonsense, framed, understood
from overread.infer.parcel import Packed, Parcel, pack, unpack
from overread.infer.protocol import Done, Failed, Message, Progressed, Ready

BOX = Box(1, 0.75, (0.5, 1.0, 2.0), (3.5, 4.0, 5.0))
MESSAGES: list[Message] = [
    Ready("cuda:1", 2.5, 80 << 30, 2, Walls(("one",), ("two (why)",), False)),
    Progressed(0.25),
    Failed("card", "the bundle is odd: ü", "net.py:4 in forward"),
    Done(
        Parcel((Packed("mask", 3, "bool", (2, 3, 4), 24),), (BOX,), (Likelihood(2, 0.5, True),), ("adapted",)), 9.0, 1
    ),
]
SHAPE = (2, 3, 4)


@pytest.fixture
def ends() -> Iterator[tuple[Inbox, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Inbox(ours), theirs


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_what_is_said_is_understood_however_it_is_cut(message: Message, ends: tuple[Inbox, socket.socket]) -> None:
    inbox, theirs = ends
    said = framed(message) * 2
    for at in range(0, len(said), 7):
        theirs.send(said[at : at + 7])
    assert [inbox.next(1.0), inbox.next(1.0)] == [message, message]


def test_half_a_message_is_not_waited_for(ends: tuple[Inbox, socket.socket]) -> None:
    inbox, theirs = ends
    theirs.send(framed(MESSAGES[0])[:20])
    began = time.monotonic()
    assert inbox.next(0.1) is None
    assert time.monotonic() - began < 0.5
    theirs.send(framed(MESSAGES[0])[20:])
    assert inbox.next(0.1) == MESSAGES[0]


def _changed(**fields: object) -> bytes:
    return json.dumps({"message": "Ready", "device": "cpu", "seconds": 1.0, "device_bytes": 0, "gpus": 0,
                       "walls": {"had": [], "lacking": [], "open": True}, **fields}).encode()  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        pickle.dumps(Progressed(0.5)),
        b"",
        b"[]",
        b'"Ready"',
        b"[" * 100_000,
        b'{"message": "Stop"}',
        b'{"message": "Progressed"}',
        b'{"message": "Progressed", "fraction": NaN}',
        b'{"message": "Progressed", "fraction": 1e999}',
        b'{"message": "Progressed", "fraction": 2}',
        b'{"message": "Progressed", "fraction": true}',
        b'{"message": "Progressed", "fraction": "0.5"}',
        b'{"message": "Progressed", "fraction": 0.5, "more": 1}',
        b'{"message": "Failed", "kind": "other", "reason": "", "place": ""}',
        b'{"message": "Failed", "kind": "card", "reason": "\\ud800", "place": ""}',
        _changed(gpus=-1),
        _changed(device="../../x"),
        _changed(walls=None),
        _changed(device_bytes=1 << 70),
    ],
)
def test_anything_else_is_nonsense(text: bytes) -> None:
    assert understood(_changed())
    with pytest.raises(Nonsense):
        understood(text)


def test_a_frame_that_is_too_long_is_nonsense_before_it_has_come(ends: tuple[Inbox, socket.socket]) -> None:
    inbox, theirs = ends
    theirs.send(LENGTH.pack(MOST + 1))
    with pytest.raises(Nonsense):
        inbox.next(1.0)


def test_a_reading_travels_through_a_block() -> None:
    reading = Reading(
        label_map=np.arange(24, dtype=np.int64).reshape(SHAPE),
        masks={4: np.ones(SHAPE, np.bool_), 5: np.zeros(SHAPE, np.bool_)},
        image=np.linspace(0, 1, 24, dtype=np.float64).reshape(SHAPE),
        probabilities={1: np.full(SHAPE, 0.5, np.float16)},
        boxes=(BOX,),
    )
    block = blocks.empty()
    found = unpack(pack(reading, block), block, SHAPE)
    assert found.label_map is not None
    assert found.image is not None
    assert (found.label_map.dtype, found.image.dtype) == (np.uint16, np.float32)
    np.testing.assert_array_equal(found.label_map, reading.label_map)
    assert found.masks[4].all()
    assert not found.masks[5].any()
    assert found.boxes == (BOX,)
    with pytest.raises(CardError, match="outside 0 to 65535"):
        pack(Reading(label_map=np.full(SHAPE, -1, np.int32)), block)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arrays",
    [
        (Packed("mask", 1, "bool", (2, 3, 5), 0),),
        (Packed("mask", 1, "float32", SHAPE, 0),),
        (Packed("mask", 1, "bool", SHAPE, 4090),),
        (Packed("mask", 1, "bool", SHAPE, 1 << 61),),
        tuple(Packed("mask", 1, "bool", SHAPE, 0) for _ in range(2)),
        tuple(Packed("mask", n, "bool", SHAPE, 0) for n in range(1000)),
    ],
    ids=["shape", "numbers", "end", "beyond", "twice", "more than there is"],
)
def test_arrays_that_cannot_be_are_not_taken(arrays: tuple[Packed, ...]) -> None:
    block = blocks.written(bytes(4096))
    with pytest.raises(ValueError, match="array"):
        unpack(Parcel(arrays), block, SHAPE)
