"""Two hundred guests that behave badly, of every kind: a sender that does not is served within a second."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authority import Authority
from house import Service, free_ports, small_study, wait_for, write_settings
from material import CI, make
from vitals import vitals
from wire import Gone, Turned, Wire, associate_rq, p_data

from overread.simulate.scanner import Patience, send

pytestmark = pytest.mark.alone

Make = Callable[..., Service]
Crowd = Callable[..., list[socket.socket]]
MANY = 200
REQUEST = associate_rq("GUEST", "OVERREAD", [("1.2.840.10008.1.1", "1.2.840.10008.1.2")], 16384)
HELLO = struct.pack(">BHH", 22, 0x0301, 200) + b"\x01"


def within_a_second() -> float:
    """Of a machine that has nothing else to do."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def serve_one(service: Service, calling: str = "SCANNER") -> float:
    """Seconds that a C-ECHO and a C-STORE took, from the connection to the release."""
    made = make(random.Random(time.monotonic_ns()))
    started = time.monotonic()
    with Wire(service.port, 10) as wire:
        wire.associate(calling=calling)
        assert wire.echo() == 0
        assert wire.store(made.uid, made.data) == 0
        wire.release()
    return time.monotonic() - started


def bare(port: int, number: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def saying(first: bytes) -> Callable[[int, int], socket.socket]:
    def guest(port: int, number: int) -> socket.socket:
        one = bare(port, number)
        one.sendall(first)
        return one

    return guest


def associated_then(said: Callable[[Wire], bytes], *, same: bool = False) -> Callable[[int, int], socket.socket]:
    def guest(port: int, number: int) -> socket.socket:
        wire = Wire(port, 10)
        with contextlib.suppress(Turned, Gone):
            wire.associate(calling="GUEST" if same else f"GUEST{number}")
            wire.socket.sendall(said(wire))
        return wire.socket

    return guest


def half_a_store(wire: Wire) -> bytes:
    return p_data(3, [(3, wire.request("1.2.840.10008.5.1.4.1.1.2", "1.2.3"))])


GUESTS: dict[str, Callable[[int, int], socket.socket]] = {
    "connect and say nothing": bare,
    "three bytes of a header": saying(b"\x01\0\0"),
    "half a request": saying(REQUEST[:50]),
    "a request of two GiB": saying(struct.pack(">BBL", 1, 0, 0x7FFFFFFF)),
    "associated, then nothing": associated_then(lambda _: b""),
    "a command without its data set": associated_then(half_a_store),
    "stops inside a PDU": associated_then(lambda _: struct.pack(">BBL", 4, 0, 16000) + b"\0\0\x10\0\x03\0" + bytes(99)),
    "a PDU of two GiB": associated_then(lambda _: struct.pack(">BBL", 4, 0, 0x7FFFFFFF) + bytes(10)),
}


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[socket.socket]]]:
    """``crowd(port, guest, count)``: so many guests, whose connections are closed at the end."""
    came: list[socket.socket] = []

    def come(port: int, guest: Callable[[int, int], socket.socket], count: int = MANY) -> list[socket.socket]:
        for n in range(count):
            came.append(guest(port, n))
        return came

    yield come
    for one in came:
        one.close()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Service]:
    """One for all floods: what one of them left behind, the next would see."""
    one = Service(write_settings(tmp_path_factory.mktemp("listener"), tiny_models, []), "listen")
    yield one.start()
    one.end()


@pytest.mark.parametrize("kind", GUESTS)
def test_a_flood_holds_up_nobody(
    listener: Service, crowd: Crowd, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And when it is over, the listener is what it was: its threads and descriptors."""
    serve_one(listener)
    before = vitals(listener.pid)
    guests = crowd(listener.port, GUESTS[kind])
    took, during = serve_one(listener), vitals(listener.pid)
    with capsys.disabled():
        print(f"\n{MANY} × {kind}: served in {took:.2f} s, with {during.threads} threads and {during.descriptors} fds")
    assert took < within_a_second()
    assert during.descriptors < before.descriptors + MANY
    for guest in guests:
        guest.close()
    wait_for(lambda: vitals(listener.pid).threads <= before.threads, 20, "the threads to end")
    wait_for(lambda: vitals(listener.pid).descriptors <= before.descriptors, 20, "the descriptors to be closed")
    assert serve_one(listener) < within_a_second()


def test_five_hundred_idle_sockets_hold_up_nobody(listener: Service, crowd: Crowd) -> None:
    crowd(listener.port, bare, 500)
    assert serve_one(listener) < within_a_second()


def test_a_byte_now_and_then_holds_up_nobody(listener: Service, crowd: Crowd) -> None:
    """Two hundred associations that trickle, so that none of them is ever idle for long."""
    guests = crowd(listener.port, GUESTS["associated, then nothing"])
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(1.0):
            for guest in guests:
                with contextlib.suppress(OSError):
                    guest.send(b"\x04")

    thread = threading.Thread(target=trickle)
    thread.start()
    time.sleep(1.5)
    assert serve_one(listener) < within_a_second()
    stop.set()
    thread.join()


def test_idle_associations_of_one_peer_leave_places_for_others(service: Make) -> None:
    """Also when each of them has stored something, so that none makes way."""
    rows = [{"ae_title": "GUEST", "network": "127.0.0.0/8"}, {"ae_title": "SCANNER", "network": "127.0.0.0/8"}]
    listening = service(role="listen", receive={"max_associations": 6, "allow": rows}).start()
    rng, guests, turned = random.Random(1), [], 0
    for _ in range(8):
        wire = Wire(listening.port, 10)
        guests.append(wire)
        try:
            made = make(rng)
            assert wire.associate(calling="GUEST").store(made.uid, made.data) == 0
        except Turned as told:
            assert told.answer == (2, 3, 2)
            turned += 1
    assert turned == 5
    assert serve_one(listening) < within_a_second()
    for wire in guests:
        wire.close()


def test_a_health_check_every_few_milliseconds_takes_no_association(service: Make) -> None:
    """As of a load balancer, at a listener with room for one association."""
    listening = service(role="listen", receive={"max_associations": 1}).start()
    stop = threading.Event()

    def check() -> None:
        while not stop.wait(0.02):
            bare(listening.port, 0).close()

    thread = threading.Thread(target=check)
    thread.start()
    times = [serve_one(listening) for _ in range(20)]
    stop.set()
    thread.join()
    assert max(times) < within_a_second()
    assert "ConnectionDropped" not in listening.log.read_text()


# --- over TLS, with DCMTK as the peer --------------------------------------------------------------------------------


@pytest.fixture
def secure(service: Make, tmp_path: Path) -> Iterator[tuple[Service, int, Authority]]:
    """A listener with a secure port, where clients need a certificate with their AE title in it."""
    authority, (port,) = Authority(tmp_path / "pki"), free_ports(1)
    server = authority.server(rsa=2048)
    tls = {"port": port, "certificate": str(server.certificate), "key": str(server.key)}
    tls |= {"client_certificates": "required", "client_ca": str(authority.certificate)}
    rows = [{"ae_title": "SCANNER", "network": "127.0.0.0/8"}]
    rows += [{"ae_title": "*", "network": "127.0.0.0/8", "certificate": "{ae_title}"}]
    yield service(role="listen", receive={"tls": tls, "allow": rows}).start(), port, authority


def dcmtk(tool: str) -> str:
    """The path of a DCMTK tool; pynetdicom installs others under the same names."""
    for folder in os.get_exec_path():
        found = Path(folder) / tool
        if found.is_file():
            said = subprocess.run([found, "--version"], capture_output=True, check=False).stdout
            if b"dcmtk" in said.lower():
                return str(found)
    (pytest.fail if CI else pytest.skip)(f"DCMTK's {tool} is not installed")


def call(
    tool: str, port: int, authority: Authority, who: str, *more: str, calling: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK tool over TLS with the certificate of ``who``."""
    identity = authority.folder / who
    if not identity.with_suffix(".key").exists():
        authority.issue(who, rsa=2048)
    keys = ["+tls", str(identity.with_suffix(".key")), str(identity.with_suffix(".pem"))]
    command = [dcmtk(tool), *keys, "+cf", str(authority.certificate), "-aet", calling or who, "-aec", "OVERREAD"]
    command += ["127.0.0.1", str(port), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_dcmtk_over_tls(secure: tuple[Service, int, Authority], tmp_path: Path) -> None:
    """echoscu and storescu with a certificate are served; with that of another they are told, and nothing is kept."""
    listening, port, authority = secure
    assert call("echoscu", port, authority, "CT1").returncode == 0
    refused = call("echoscu", port, authority, "CT1", calling="CT2")
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr + refused.stdout
    study = small_study(tmp_path, "secure")
    files = [str(path) for path in study.files]
    done = call("storescu", port, authority, "CT1", *files)
    assert done.returncode == 0, done.stderr
    sent = {path.read_bytes()[144 + int.from_bytes(path.read_bytes()[140:144], "little") :] for path in study.files}
    kept = [path.read_bytes() for path in (listening.data / "spool" / "instances").rglob("*.dcm")]
    assert {data[144 + int.from_bytes(data[140:144], "little") :] for data in kept} == sent
    told = listening.page("listen", "metrics")[1]
    assert 'overread_associations_refused_total{reason="certificate"} 1.0' in told
    assert 'overread_certificate_remaining_seconds{kind="certificate"} 7.7' in told


def test_two_hundred_stalled_handshakes_hold_up_nobody(
    secure: tuple[Service, int, Authority], crowd: Crowd
) -> None:
    """Neither at the secure port nor at the plain one; half of them stop inside their first message."""
    listening, port, authority = secure
    assert call("echoscu", port, authority, "CT1").returncode == 0
    before = vitals(listening.pid)
    crowd(port, saying(HELLO), MANY // 2)
    guests = crowd(port, bare, MANY // 2)
    assert vitals(listening.pid).threads <= before.threads
    started = time.monotonic()
    assert call("echoscu", port, authority, "CT1").returncode == 0
    assert time.monotonic() - started < within_a_second()
    assert serve_one(listening) < within_a_second()
    for guest in guests:
        guest.close()
    wait_for(lambda: vitals(listening.pid).descriptors <= before.descriptors, 20, "the descriptors to be closed")


def test_a_certificate_is_renewed_without_a_restart(secure: tuple[Service, int, Authority], tmp_path: Path) -> None:
    """A bad one changes nothing, a good one is served within seconds, and who is connected stays."""
    listening, port, authority = secure
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.check_hostname = False
    context.load_cert_chain(*_files(authority, "CT9"))

    def serial() -> str:
        with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as secured:
            return str((secured.getpeercert() or {})["serialNumber"])

    first = serial()
    authority.issue("other", file="server.other")
    certificate = authority.folder / "server.pem"
    certificate.write_text("rubbish")
    wait_for(lambda: "CertificatesNotTaken" in listening.log.read_text(), 20, "the bad certificate to be told")
    assert serial() == first
    authority.server(rsa=2048)
    wait_for(lambda: serial() != first, 20, "the new certificate to be used")
    before = listening.log.read_text().count("CertificateRead")
    os.kill(listening.pid, 1)
    wait_for(lambda: listening.log.read_text().count("CertificateRead") > before, 20, "SIGHUP to read them again")


def _files(authority: Authority, who: str) -> tuple[Path, Path]:
    identity = authority.issue(who)
    return identity.certificate, identity.key


def test_a_study_to_the_stat_title_is_read_first(service: Make, tmp_path: Path) -> None:
    """Sent last, first in the queue; its jobs carry its urgency and hint, and explain tells so."""
    called = [{"ae_title": "STAT", "priority": "STAT", "hint": "head"}]
    house = service(receive={"called": called}, schedule={"slots": 1}).start()
    pid = house.role_pid("work")
    assert pid is not None
    os.kill(pid, 19)  # nobody works while both studies come
    try:
        studies = [small_study(tmp_path, name) for name in ("usual", "urgent")]
        for study, title in zip(studies, ("OVERREAD", "STAT"), strict=True):
            peer = type(house.peer)(title, house.peer.host, house.peer.port)
            send(list(study.files), peer, calling_ae="SCANNER", patience=Patience(3, timeout_s=30.0))
        wait_for(lambda: len(house.rows("SELECT id FROM job")) == 2, 60, "both jobs to be planned")
    finally:
        os.kill(pid, 18)
    for study in studies:
        house.wait_states(study.uid, ["COMPLETED"])
    claimed = "SELECT study_uid FROM job_event JOIN job ON job.id = job_id WHERE event = 'claim' ORDER BY at"
    assert [uid for (uid,) in house.rows(claimed)] == [studies[1].uid, studies[0].uid]
    told = house.ask("explain", studies[1].uid).stdout
    assert "sent to STAT" in told and "priority STAT, hint head" in told
