"""Many guests who hang, of every kind: a legitimate request is served within a second, and nothing is left of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overread.domain.events import RequestAnswered

from ..conftest import until
from .conftest import Clinic
from .sending import BOUNDARY, PART, chunked, exchange, head, read_reply, related, store

MANY = 200
Start = Callable[..., Clinic]
BEGUN = b"--" + BOUNDARY.encode() + b"\r\n" + PART + b"\r\n"
KINDS = {
    "connect": b"",
    "half a request line": b"POST /dicom-web",
    "slow head": head("Content-Length: 100000")[:-4],
    "no body": head("Content-Length: 100000"),
    "slow part headers": head("Content-Length: 100000") + BEGUN[:-4],
    "slow preamble of the file": head("Content-Length: 100000") + BEGUN + bytes(100),
    "slow chunk": head("Transfer-Encoding: chunked") + b"ffffff\r\n" + BEGUN,
    "slow chunk size": head("Transfer-Encoding: chunked") + b"0000",
    "waits to be asked": head("Content-Length: 100000", "Expect: 100-continue"),
}


@contextlib.contextmanager
def held(port: int, sent: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    wires = []
    try:
        for _ in range(count):
            wire = socket.create_connection(("127.0.0.1", port), 5)
            wires.append(wire)
            with contextlib.suppress(OSError):
                wire.sendall(sent)
        yield wires
    finally:
        for wire in wires:
            wire.close()


def served_s(home: Clinic, file: bytes) -> float:
    started = time.monotonic()
    assert store(home.port, [file]).status == 200
    return time.monotonic() - started


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("connections", [256, 32], ids=["room for all", "room for few"])
@pytest.mark.parametrize("kind", [*KINDS, "slow file"])
def test_two_hundred_who_hang_leave_room_for_who_sends(
    clinic: Start, files: list[bytes], kind: str, connections: int
) -> None:
    home = clinic(connections=connections, connections_per_address=connections)
    sent = KINDS.get(kind, head("Content-Length: 100000") + BEGUN + files[1][:3000])
    assert served_s(home, files[0]) < 1.0
    before = descriptors(), threading.active_count()
    with held(home.port, sent):
        until(lambda: home.server.connections >= min(connections, MANY), 2.0)
        if connections < MANY:
            time.sleep(0.3)  # at first a body is not judged
        assert max(served_s(home, files[0]) for _ in range(3)) < 1.0
        assert home.server.connections <= connections
    assert until(lambda: home.server.connections == 0)
    assert until(lambda: (descriptors() <= before[0], threading.active_count() <= before[1]) == (True, True))
    assert home.incoming() == [] and len(list(home.spool.instance_paths())) == 1


def test_deadlines_end_who_hangs(clinic: Start, files: list[bytes]) -> None:
    """408 for a head or a body that began; no word to who never spoke, or is idle between two requests."""
    home = clinic(header_s=0.3, idle_s=0.3, stall_s=0.3)
    wanted = {"connect": 0, "half a request line": 408, "slow head": 408, "slow part headers": 408, "slow chunk": 408}
    for kind, status in wanted.items():
        with socket.create_connection(("127.0.0.1", home.port), 5) as wire:
            wire.sendall(KINDS[kind])
            started = time.monotonic()
            if status:
                assert read_reply(wire).status == status, kind
            else:
                assert wire.recv(100) == b""
            assert 0.2 < time.monotonic() - started < 2.0, kind
    with socket.create_connection(("127.0.0.1", home.port), 5) as wire:
        body = related(files[:1])
        wire.sendall(head(f"Content-Length: {len(body)}") + body)
        assert read_reply(wire).status == 200
        assert wire.recv(100) == b""
    assert home.incoming() == []


def test_a_body_that_trickles_is_ended_and_what_was_whole_is_reported(
    clinic: Start, files: list[bytes], ct_bytes: list[tuple[str, bytes]]
) -> None:
    home = clinic(stall_s=0.5, least_bytes_s=5000)
    body = related(files[:2])
    stop = threading.Event()
    with socket.create_connection(("127.0.0.1", home.port), 5) as wire:
        wire.sendall(head("Content-Length: 1000000") + body[: body.rindex(b"DICM")])

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    wire.sendall(b"x")

        feeding = threading.Thread(target=trickle)
        feeding.start()
        reply = read_reply(wire)
        stop.set()
        feeding.join()
    assert (reply.status, reply.stored, reply.other) == (408, [ct_bytes[0][0]], [0xC000])
    assert home.incoming() == []


def test_when_all_who_are_here_send_the_next_is_told_to_wait(clinic: Start, files: list[bytes]) -> None:
    home = clinic(connections=3, connections_per_address=3)
    with held(home.port, head("Content-Length: 100000") + BEGUN, 3):
        assert until(lambda: sum(c.wire.in_body for c in list(home.server._open)) == 3)
        reply = exchange(home.port, b"")
        assert (reply.status, reply.fields["Retry-After"]) == (503, "5")
        assert until(lambda: home.said(RequestAnswered))
    assert until(lambda: home.server.connections == 0)


def test_one_address_cannot_take_all_places(clinic: Start) -> None:
    home = clinic(connections=20, connections_per_address=5)
    with held(home.port, b"", 12):
        assert until(lambda: home.server.connections == 5)


def test_an_endless_body_ends_at_the_limit_with_an_answer(clinic: Start) -> None:
    home = clinic(request_bytes=1 << 20, part_bytes=1 << 20)
    junk = chunked(bytes(1 << 16), 1 << 16).removesuffix(b"0\r\n\r\n")
    with socket.create_connection(("127.0.0.1", home.port), 5) as wire:
        wire.sendall(head("Transfer-Encoding: chunked") + chunked(BEGUN, 1000).removesuffix(b"0\r\n\r\n"))
        feeding = threading.Thread(target=_forever, args=(wire, junk))
        feeding.start()
        assert read_reply(wire).status == 413
        feeding.join(10)
        assert not feeding.is_alive()
    assert home.incoming() == []


def _forever(wire: socket.socket, junk: bytes) -> None:
    with contextlib.suppress(OSError):
        for _ in range(100_000):
            wire.sendall(junk)


def test_stopping_ends_who_hangs(clinic: Start) -> None:
    home = clinic()
    with held(home.port, KINDS["slow chunk"], 20):
        assert until(lambda: home.server.connections == 20)
        started = time.monotonic()
        home.server.stop()
        assert time.monotonic() - started < 2.0
        assert until(lambda: home.server.connections == 0) and home.incoming() == []
