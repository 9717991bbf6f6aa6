"""STOW-RS against the running listener: memory, floods from other programs, kill -9 between answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import Service, free_ports, wait_for
from material import Made, element, header, make, new_uid, stored_files
from vitals import MB, forget_peak, peak_rss, vitals

from overread.spool.meta import file_meta

pytestmark = pytest.mark.alone

BOUNDARY = "frontier"
MEDIA = f"multipart/related; type=application/dicom; boundary={BOUNDARY}"
CT, WORD_FRAMES, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7.3", "1.2.840.10008.1.2.1"
START = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
HUGE_MB, FRAME_MB, ALLOWED = 500, 2, 24 * MB
MANY = 200
Listener = tuple[Service, int]


@pytest.fixture
def listener(service: Callable[..., Service]) -> Listener:
    """A listener that serves STOW-RS, and its port."""
    (port,) = free_ports(1)
    # Tables of settings are merged one level deep, so what a listener needs is said here again.
    receive = {"stow": {"enabled": True, "port": port}}
    return service(role="listen", receive=receive).start(), port


def body(made: list[Made]) -> bytes:
    files = (file_meta(CT, one.uid, EXPLICIT, "") + one.data for one in made)
    return b"".join(START + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


def post(port: int, content: bytes | Iterator[bytes], timeout_s: float = 60.0) -> tuple[int, list[str]]:
    """Status, and the SOP Instance UIDs that are stored; an iterator goes in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("POST", "/dicom-web/studies", content, {"Content-Type": MEDIA})
        answer = connection.getresponse()
        said = answer.read()
        items = json.loads(said).get("00081199", {}).get("Value", []) if said.startswith(b"{") else []
        return answer.status, [item["00081155"]["Value"][0] for item in items]


@pytest.mark.slow
def test_a_huge_part_passes_through_little_memory(
    listener: Listener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a gigabyte in one part, made as it is sent: kept whole, never whole in memory."""
    house, port = listener
    if shutil.disk_usage(tmp_path).free < (HUGE_MB + 200) * MB:
        pytest.skip(f"less than {HUGE_MB + 200} MB free in {tmp_path}")
    rng = random.Random(5)
    assert post(port, body([make(rng, MB)]))[0] == 200
    before = forget_peak(house.pid)
    uid, study = new_uid(rng), new_uid(rng)
    assert post(port, huge(uid, study), 120) == (200, [uid])
    rise = peak_rss(house.pid) - before
    with capsys.disabled():
        print(f"\n{HUGE_MB} MB in one part: {rise / MB:.1f} MB more of {ALLOWED / MB:.0f} allowed")
    assert rise <= ALLOWED
    (path,) = [p for p in stored_files(house.data / "spool") if p.stat().st_size > HUGE_MB * MB]
    path.unlink()


def huge(uid: str, study: str) -> Iterator[bytes]:
    frames, pixels = HUGE_MB // FRAME_MB, random.Random(2).randbytes(FRAME_MB * MB)
    yield START + file_meta(WORD_FRAMES, uid, EXPLICIT, "")
    yield header(uid, study, f"{study}.1", 1024, FRAME_MB * MB // 2048, frames=frames)
    yield element(0x7FE00010, "OW", b"")[:8] + (frames * FRAME_MB * MB).to_bytes(4, "little")
    for _ in range(frames):
        yield pixels
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def test_two_hundred_of_any_kind_leave_the_door_open(listener: Listener) -> None:
    """What floods DIMSE, sent to HTTP, and slow bodies; afterwards the process takes no more than before."""
    house, port = listener
    rng = random.Random(7)
    assert post(port, body([make(rng, 1000)]))[0] == 200
    slow_body, lying_pdu = _head(10**6) + START + bytes(500), b"\x01\0\x7f\xff\xff\xff\0\1\0\0"
    for sent in (b"", b"POST /", b"\x01\x00\x00", lying_pdu, slow_body):
        _flooded(house, port, sent, rng)


def _flooded(house: Service, port: int, sent: bytes, rng: random.Random) -> None:
    before = vitals(house.pid)
    with contextlib.ExitStack() as wires:
        for _ in range(MANY):
            wire = wires.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            with contextlib.suppress(OSError):
                wire.sendall(sent)
        for _ in range(3):
            started = time.monotonic()
            assert post(port, body([make(rng, 1000)]))[0] == 200
            assert time.monotonic() - started < 1.0
    wait_for(lambda: vitals(house.pid).descriptors <= before.descriptors + 8, 15, "the end of descriptors")
    wait_for(lambda: vitals(house.pid).threads <= before.threads + 9, 15, "the end of threads")
    assert not any((house.data / "spool" / "incoming").iterdir())


def _head(length: int) -> bytes:
    return (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.slow
def test_kill_9_in_the_middle_takes_nothing_that_was_reported(
    listener: Listener, service: Callable[..., Service]
) -> None:
    """The ledger knows all that was reported stored, once the listener runs again; sent again, all is stored once."""
    house, port = listener
    rng = random.Random(9)
    study = [make(rng, 20_000) for _ in range(60)]
    told: list[str] = []
    for number in range(0, 30, 3):
        told += post(port, body(study[number : number + 3]))[1]
    with socket.create_connection(("127.0.0.1", port), 5) as wire:
        rest = body(study[30:])
        wire.sendall(_head(len(rest)) + rest[: len(rest) // 2])
        time.sleep(0.05)
        house.kill()
    assert len(told) == 30
    house.start()
    assert set(told) <= {uid for (uid,) in house.rows("SELECT sop_instance_uid FROM instance")}
    assert len(post(port, body(study))[1]) == 60
    wait_for(lambda: len(house.rows("SELECT 1 FROM instance")) == 60, 20, "all in the ledger")
    assert not any((house.data / "spool" / "incoming").iterdir())


def test_the_settings_open_the_door_and_check_tells_of_it(listener: Listener, service: Callable[..., Service]) -> None:
    house, port = listener
    assert f"http://127.0.0.1:{port}/dicom-web/studies" in house.ask("check").stdout
    assert post(port, b"--frontier\r\n\r\nno dicom\r\n--frontier--")[0] == 409
    assert "it is no DICOM file" in house.ask("quarantine", "list").stdout
    page = house.page("listen", "metrics")[1]
    assert 'overread_stow_requests_total{status="409"} 1.0' in page
    open_to_all = service(role="listen", receive={"stow": {"enabled": True, "host": "0.0.0.0"}})
    said = open_to_all.ask("run", "--role", "listen")
    assert said.returncode != 0 and "receive.stow.tokens" in said.stderr + said.stdout
    assert "receive.stow.tokens" in open_to_all.ask("check").stdout
