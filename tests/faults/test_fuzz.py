"""Thousands of broken conversations with a real listener: each is answered or ended, nothing is acknowledged that is
not stored, and afterwards nothing is left of them.

``OVERREAD_FUZZ_CASES`` asks for more than the usual ones, ``OVERREAD_FUZZ_SEED`` for others. STOW bodies have their own
cases where STOW-RS is tested.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from fuzzing import LONGEST, PROPOSED, Case, case
from house import Service, wait_for
from material import kept
from vitals import MB, Vitals, vitals
from wire import ANSWER, ASSOCIATE_AC, P_DATA, RELEASE_RQ, STORE_RQ, Wire, associate_rq, command_values

pytestmark = pytest.mark.alone

CASES = int(os.environ.get("OVERREAD_FUZZ_CASES", "3000"))
SEED = os.environ.get("OVERREAD_FUZZ_SEED", "1")
DEADLINE_S = 10.0
ECHO_EVERY, AT_ONCE = 100, 4
RELEASE = struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0)
RESET = struct.pack("ii", 1, 0)
Make = Callable[..., Service]


@dataclass
class Result:
    """What came of the cases: those that hung or were not answered by number, what was acknowledged by UID."""

    hung: list[int] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)


def converse(port: int, one: Case) -> Iterator[tuple[int, int]]:
    """Hold the conversation; gives (command field, status) of each message that is heard until the listener hangs up.

    Raises TimeoutError when it does not within the deadline.
    """
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as line:
        line.settimeout(DEADLINE_S)
        with contextlib.suppress(ConnectionError):
            if one.associated:
                line.sendall(associate_rq("FUZZ", "OVERREAD", PROPOSED, LONGEST))
                kind, _ = _pdu(line)
                assert kind == ASSOCIATE_AC
            line.sendall(one.sent)
            if one.reset:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            yield from _messages(line, one)


def _messages(line: socket.socket, one: Case) -> Iterator[tuple[int, int]]:
    if not one.answered:  # who may owe the rest of something says that it will not come
        with contextlib.suppress(OSError):  # it has hung up
            line.shutdown(socket.SHUT_WR)
    command = b""
    while True:
        kind, body = _pdu(line)
        if kind == 0:
            return
        if kind != P_DATA:
            continue
        length, _, control = struct.unpack_from(">LBB", body)
        command += body[6 : 4 + length]
        if control & 2:
            said = command_values(command)
            command = b""
            yield int.from_bytes(said[0x0100], "little"), int.from_bytes(said.get(0x0900, b"\xff\xff"), "little")
            if one.answered:
                line.sendall(RELEASE)


def _pdu(line: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next PDU; type 0 when the listener has hung up."""
    head = _exactly(line, 6)
    if len(head) < 6:
        return 0, b""
    return head[0], _exactly(line, int.from_bytes(head[2:], "big"))


def _exactly(line: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        more = line.recv(count - len(read))
        if not more:
            break
        read += more
    return read


def play(port: int, number: int, into: Result) -> None:
    one = case(f"{SEED}/{number}")
    heard = []
    try:
        for message in converse(port, one):
            heard.append(message)
    except TimeoutError:
        into.hung.append(number)
    stores = [status for answer, status in heard if answer == STORE_RQ | ANSWER]
    into.statuses.update(stores)
    if one.answered and len(stores) != 1:
        into.unanswered.append(number)
    if 0x0000 in stores:
        into.acknowledged[one.uid] = one.data


@pytest.fixture
def listener(service: Make) -> Service:
    quick = {"acse_timeout_s": 3.0, "dimse_timeout_s": 5.0, "network_timeout_s": 5.0}
    return service(role="listen", receive=quick).start()


def test_whatever_comes_through_the_door(listener: Service) -> None:
    _warm(listener.port)
    before, result, started = _settled(listener.pid), Result(), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(0, CASES, ECHO_EVERY):
            list(pool.map(lambda n: play(listener.port, n, result), range(first, min(CASES, first + ECHO_EVERY))))
            with Wire(listener.port, DEADLINE_S) as wire:
                assert wire.associate().echo() == 0, f"no answer to a C-ECHO after case {first}"
    print(f"{CASES} cases in {time.monotonic() - started:.0f} s: {dict(result.statuses)}")
    assert not result.hung and not result.unanswered, f"seed {SEED}: {result.hung} hung, {result.unanswered} unanswered"
    assert result.acknowledged
    _require_stored(listener, result)
    _require_nothing_left(listener, before)


def _require_stored(listener: Service, result: Result) -> None:
    """What was acknowledged is there byte for byte, and what is there was sent; the data set of a case may be good."""
    there = kept(listener.data / "spool")
    wrong = [uid for uid, data in result.acknowledged.items() if data not in there.get(uid, [])]
    assert not wrong, f"seed {SEED}: {len(wrong)} acknowledged data sets are not in the spool as they were sent"


def _require_nothing_left(listener: Service, before: Vitals) -> None:
    with contextlib.suppress(AssertionError):
        wait_for(lambda: vitals(listener.pid).threads <= before.threads, 30)
    after = _settled(listener.pid)
    assert after.threads <= before.threads, (before, after)
    assert after.descriptors <= before.descriptors, (before, after)
    assert after.rss < before.rss + 48 * MB, (before, after)
    assert not list((listener.data / "spool" / "incoming").iterdir())
    assert "CRITICAL" not in listener.log.read_text("utf-8", "replace"), "a thread of the listener died"
    with Wire(listener.port) as wire:
        assert wire.associate().echo() == 0


def _warm(port: int) -> None:
    """Some of each, so that what is only made once is there before anything is compared."""
    warming = Result()
    for number in range(-60, 0):
        play(port, number, warming)


def _settled(pid: int) -> Vitals:
    time.sleep(1.0)
    return vitals(pid)


