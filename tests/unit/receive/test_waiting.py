"""Before and around associations: who waits, who makes way, and what is refused before it is read."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from overread.domain.events import AssociationClosed, AssociationRefused, ConnectionDropped, InstanceRefused
from overread.receive import seats, waiting
from overread.receive.admission import Row
from overread.receive.upper_layer import FAST, STOCK, Layers

from . import raw
from .conftest import House, until

Slices = Sequence[tuple[str, bytes]]
CONTEXTS = [(1, raw.VERIFICATION, raw.IMPLICIT), (3, raw.CT, raw.EXPLICIT)]
INVALID_VALUE = struct.pack(">BxLxxBB", 7, 4, 2, 6)


class Caller(raw.Wire):
    """Asks for an association; ``answer`` is the PDU that came back."""

    def __init__(self, house: House, calling: str, address: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", house.listener.port), 10, (address, 0))
        self.send(raw.request(CONTEXTS, calling=calling))
        self.answer = self.pdu()


_callers: list[Caller] = []


@pytest.fixture(autouse=True)
def _hang_up() -> Iterator[None]:
    yield
    while _callers:
        _callers.pop().close()


def associate(house: House, calling: str = "CT1", address: str = "127.0.0.1") -> Caller:
    _callers.append(Caller(house, calling, address))
    return _callers[-1]


def store(wire: raw.Wire, uid: str, data: bytes) -> int:
    wire.send(raw.store_pdus(3, uid, data))
    answer = wire.pdu()
    return int.from_bytes(answer[answer.index(b"\0\0\0\x09\x02\0\0\0") + 8 :][:2], "little")


def served(house: House) -> float:
    """Seconds until an association was opened, echoed and released."""
    started = time.monotonic()
    wire = associate(house, "PROBE", "127.0.0.9")
    assert wire.answer[0] == 2
    wire.send(raw.pdata(raw.value(1, 3, raw.echo_command())))
    assert wire.pdu()[0] == 4
    wire.send(raw.RELEASE)
    assert wire.pdu()[0] == 6
    wire.close()
    return time.monotonic() - started


def test_who_only_connects_costs_no_thread_and_no_association(house: Callable[..., House]) -> None:
    home = house(max_connections_per_address=1000, max_connections=1000)
    threads = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", home.listener.port)) for _ in range(300)]
    assert until(lambda: home.listener.waiting == 300)
    assert threading.active_count() == threads
    assert home.listener.associations == 0
    assert served(home) < 1
    for one in silent:
        one.close()
    assert until(lambda: home.listener.waiting == 0)
    assert not home.said(ConnectionDropped)


def test_who_has_waited_longest_makes_way(house: Callable[..., House]) -> None:
    """Of the same address, so that a crowd from one costs the others nothing."""
    home = house(max_connections_per_address=3, max_connections=5)
    other = socket.create_connection(("127.0.0.1", home.listener.port), 5, ("127.0.0.2", 0))
    crowd = [socket.create_connection(("127.0.0.1", home.listener.port)) for _ in range(5)]
    assert until(lambda: len(home.said(ConnectionDropped)) == 2)
    assert [one.recv(1) for one in crowd[:2]] == [b"", b""]
    assert until(lambda: home.listener.waiting == 4)  # who came last sits down after that was told
    other.sendall(raw.request(CONTEXTS))
    assert other.recv(1) == b"\x02"
    for one in (other, *crowd):
        one.close()


def test_a_request_must_be_whole_in_time(house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    """ARTIM begins with the connection and is not prolonged by a byte now and then."""
    home = house()
    monkeypatch.setattr(home.listener._room, "_limits", waiting.Limits(request_s=0.4))
    slow = socket.create_connection(("127.0.0.1", home.listener.port), 5)
    started = time.monotonic()
    request = raw.request(CONTEXTS)
    with pytest.raises(OSError):
        for n in range(len(request)):
            slow.sendall(request[n : n + 1])
            time.sleep(0.05)
    assert time.monotonic() - started < 3
    assert home.said(ConnectionDropped)[0].reason == "silent"
    slow.close()


@pytest.mark.parametrize("layers", [FAST, STOCK], ids=["fast", "stock"])
def test_a_request_in_single_bytes_is_understood(house: Callable[..., House], layers: Layers) -> None:
    home = house(layers=layers)
    wire = raw.Wire(home.listener.port)
    wire.send(bytes([byte]) for byte in raw.request(CONTEXTS))
    assert wire.pdu()[0] == 2
    wire.send(raw.RELEASE)
    assert wire.pdu()[0] == 6
    wire.close()


@pytest.mark.parametrize(
    ("first", "answer", "reason"),
    [
        (struct.pack(">BxL", 1, 0x7FFFFFFF), INVALID_VALUE, "too-long"),
        (struct.pack(">BxL", 1, 1 << 18), INVALID_VALUE, "too-long"),
        (struct.pack(">BxL", 1, 4) + b"abcd", INVALID_VALUE, "malformed"),
        (struct.pack(">BxLxxxx", 5, 4), struct.pack(">BxLxxBB", 7, 4, 2, 2), "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BxLxxBB", 7, 4, 2, 1), "malformed"),
        (bytes.fromhex("160301020001fc0303") + bytes(40), struct.pack(">BxLxxBB", 7, 4, 2, 1), "malformed"),
    ],
    ids=["2 GiB", "longest and one", "too short", "release first", "HTTP", "TLS at the plain port"],
)
def test_what_is_no_request_is_answered_by_an_abort(
    house: Callable[..., House], *, first: bytes, answer: bytes, reason: str
) -> None:
    """Once its first six bytes are there, with the reason of PS3.8 Section 9.3.8."""
    home = house()
    wire = raw.Wire(home.listener.port)
    wire.send(first)
    assert wire.pdu() == answer
    wire.close()
    assert home.said(ConnectionDropped)[0].reason == reason
    assert until(lambda: home.listener.waiting == 0)


def test_a_pdu_one_byte_longer_than_negotiated_is_refused_before_it_is_read(house: Callable[..., House]) -> None:
    home = house()
    wire = associate(home)
    wire.send(struct.pack(">BxL", 4, 16385))
    assert wire.pdu()[0] == 7
    wire.close()


@pytest.mark.parametrize("layers", [FAST, STOCK], ids=["fast", "stock"])
def test_idle_newcomers_make_way_for_whoever_calls(house: Callable[..., House], layers: Layers) -> None:
    """A dozen associations, each under a name of its own, that say nothing: nobody else waits for a second."""
    home = house(max_associations=4, layers=layers)
    idle = [associate(home, f"FLOOD{n}") for n in range(12)]
    assert [wire.answer[0] for wire in idle] == [2] * 12
    assert served(home) < 1.5
    assert home.listener.associations <= 4
    assert {e.reason for e in home.said(ConnectionDropped)} == {"idle"}
    assert idle[0].pdu()[0] == 7
    for wire in idle:
        wire.close()
    assert until(lambda: home.listener.associations == 0)


def test_who_has_stored_something_is_not_sent_away(
    house: Callable[..., House], ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least not for half a minute; the caller is told that there is no place."""
    home = house(max_associations=2)
    busy = [associate(home, f"CT{n}") for n in range(2)]
    assert [store(wire, *slice_) for wire, slice_ in zip(busy, ct_bytes, strict=False)] == [0, 0]
    time.sleep(0.7)
    assert associate(home, "CT9").answer[6:] == bytes([0, 2, 3, 2])
    assert home.said(AssociationRefused)[-1].reason == "limit"
    monkeypatch.setattr(seats, "IDLE_S", 0.1)
    assert associate(home, "CT9").answer[0] == 2
    assert until(lambda: home.said(AssociationClosed))
    for wire in busy:
        wire.close()


def test_a_peer_makes_way_for_itself_only(house: Callable[..., House]) -> None:
    """Idle associations of one address, half of all places, leave the other half to others."""
    home = house(max_associations=4, allow=[("*", "127.0.0.0/8")])
    idle = [associate(home, f"A{n}") for n in range(8)]
    assert home.listener.associations == 2
    others = [associate(home, "B", "127.0.0.2") for _ in range(2)]
    started = time.monotonic()
    assert served(home) < 1.5
    assert time.monotonic() - started < 1.5
    for wire in (*idle, *others):
        wire.close()


def test_more_than_a_peer_may_store_in_a_day_is_for_tomorrow(house: Callable[..., House], ct_bytes: Slices) -> None:
    """The instance that reaches the limit is taken, the next is answered 0xA700 and the next association rejected."""
    (uid, data), (other, more) = ct_bytes[:2]
    home = house(allow=[Row("CT1", "127.0.0.0/8", max_bytes_per_day=len(data)), Row("CT2", "127.0.0.0/8")])
    wire = associate(home)
    assert [store(wire, uid, data), store(wire, other, more)] == [0x0000, 0xA700]
    assert home.said(InstanceRefused)[0].reason == "more than this sender may store in a day"
    wire.close()
    assert associate(home).answer[6:] == bytes([0, 2, 3, 1])
    second = associate(home, "CT2")
    assert store(second, other, more) == 0x0000
    second.close()
    assert len(home.stored()) == 2


def test_what_was_called_is_kept_with_the_image(house: Callable[..., House], ct_bytes: Slices) -> None:
    """In the receipt, and in the file as Receiving AE Title, so that a comparison finds it again."""
    from overread.spool.header import read_file

    home = house()
    wire = associate(home)
    store(wire, *ct_bytes[0])
    wire.close()
    (path,) = home.stored()
    assert home.arrivals[0].instance.called_ae == read_file(home.spool.absolute(path)).called_ae == "OVERREAD"
