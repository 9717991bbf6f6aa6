"""The secure door, with certificates good and bad, and clients of every kind."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overread.domain.errors import ConfigError
from overread.domain.events import (
    AssociationRefused,
    CertificateRead,
    CertificatesNotTaken,
    ConnectionDropped,
)
from overread.receive import tls as tls_module
from overread.receive.admission import Row
from overread.receive.certificates import Terms, make_context, validities
from overread.receive.tls import Tls
from overread.receive.upper_layer import FAST, STOCK

from . import raw
from .authority import SERVER, Authority, Identity
from .conftest import House, until

Slices = Sequence[tuple[str, bytes]]
CONTEXTS = [(1, raw.VERIFICATION, raw.IMPLICIT), (3, raw.CT, raw.EXPLICIT)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("ours"))
    authority.server()
    return authority


@pytest.fixture(scope="module")
def ct1(ours: Authority) -> Identity:
    return ours.issue("CT1")


@pytest.fixture
def terms(ours: Authority) -> Terms:
    return Terms(ours.folder / "server.pem", ours.folder / "server.key", "required", ours.certificate)


def client(ours: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ours.certificate))
    context.check_hostname = False
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


class SecureWire(raw.Wire):
    """A connection over TLS that reads whole PDUs."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.socket = context.wrap_socket(self.socket)


def echo(house: House, context: ssl.SSLContext, calling: str = "CT1") -> bool:
    """Whether an association over TLS is let in and a C-ECHO answered; the error when TLS itself fails."""
    wire = SecureWire(house.listener.secure_port, context)
    try:
        wire.send(raw.request(CONTEXTS, calling=calling))
        if (wire.pdu() or b"\0")[0] != 2:
            return False
        wire.send(raw.pdata(raw.value(1, 3, raw.echo_command())))
        wire.pdu()
        wire.send(raw.RELEASE)
        return wire.pdu()[0] == 6
    finally:
        wire.close()


def refused(house: House, context: ssl.SSLContext) -> str:
    """OpenSSL's word for why the listener did not take this client's handshake."""
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        assert not echo(house, context)
        raise ConnectionError  # of TLS 1.3 a client learns late: it reads the end
    assert until(lambda: house.said(ConnectionDropped))
    assert house.said(ConnectionDropped)[0].reason == "handshake-refused"
    return str(house.said(ConnectionDropped)[0].detail)


@pytest.mark.parametrize("profile", ["bcp195", "bcp195-modified"])
@pytest.mark.parametrize(
    ("version", "taken"), [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)]
)
def test_versions(
    house: Callable[..., House],
    ours: Authority,
    terms: Terms,
    ct1: Identity,
    *,
    version: str,
    profile: str,
    taken: bool,
) -> None:
    home = house(terms=replace(terms, profile=profile))
    context = client(ours, ct1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion[version]
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if taken:
        assert echo(home, context)
    else:
        assert "version" in refused(home, context) or "unsupported protocol" in refused(home, context)


@pytest.mark.parametrize(
    ("suite", "profiles"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", {"bcp195"}),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", {"bcp195", "bcp195-modified"}),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", {"bcp195-modified"}),
        ("ECDHE-ECDSA-AES256-SHA384", set()),
    ],
)
def test_suites_of_the_profiles(ours: Authority, terms: Terms, *, suite: str, profiles: set[str]) -> None:
    for profile in ("bcp195", "bcp195-modified"):
        names = {c["name"] for c in make_context(replace(terms, profile=profile)).get_ciphers()}
        assert (suite in names) == (profile in profiles)
        assert {n for n in names if not n.startswith(("TLS_", "ECDHE-"))} == set()


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("none", "peer did not return a certificate"),
        ("unknown CA", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("for servers", "unsuitable certificate purpose"),
        ("revoked", "certificate revoked"),
        ("list expired", "CRL has expired"),
    ],
)
def test_client_certificates_that_are_not_taken(
    house: Callable[..., House], ours: Authority, terms: Terms, tmp_path: Path, *, case: str, word: str
) -> None:
    """Each is refused in the handshake, told with OpenSSL's word for it, and a good one is taken after it."""
    stranger = Authority(tmp_path / "stranger", "Stranger")
    good = ours.issue("CT1", file="good")
    bad: dict[str, Callable[[], Identity | None]] = {
        "none": lambda: None,
        "unknown CA": lambda: stranger.issue("CT1"),
        "self-signed": lambda: _self_signed(stranger),
        "expired": lambda: ours.issue("CT1", file="old", begins=-20, ends=-1),
        "not yet valid": lambda: ours.issue("CT1", file="young", begins=1),
        "for servers": lambda: ours.issue("CT1", file="wrong", usage=SERVER),
        "revoked": lambda: ours.issue("CT1", file="lost"),
        "list expired": lambda: good,
    }
    identity = bad[case]()
    if case in ("revoked", "list expired"):
        assert identity is not None
        serials = [identity.serial] if case == "revoked" else []
        terms = replace(terms, crl=ours.revoke(*serials, ends=30 if case == "revoked" else -1))
    home = house(terms=terms)
    assert word in refused(home, client(ours, identity))
    if case != "list expired":
        assert echo(home, client(ours, good))


def _self_signed(authority: Authority) -> Identity:
    # The authority's own certificate, which is signed with its own key.
    key = authority.folder / "ca.key"
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(authority._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return Identity(authority.certificate, key)


def test_optional_certificates_are_asked_for_and_may_be_lacking(
    house: Callable[..., House], ours: Authority, terms: Terms, ct1: Identity
) -> None:
    rows = [Row("OPEN", "127.0.0.0/8"), Row("*", "127.0.0.0/8", certificate="{ae_title}")]
    home = house(terms=replace(terms, client_certificates="optional"), allow=rows)
    assert echo(home, client(ours), "OPEN")
    assert echo(home, client(ours, ct1), "OPEN")
    assert echo(home, client(ours, ct1), "CT1")
    assert not echo(home, client(ours), "CT1")
    assert not echo(home, client(ours, ct1), "CT2")
    told = [(e.reason, e.result, e.calling_ae) for e in home.said(AssociationRefused)]
    assert told == [("certificate", "1/1/3", "CT1"), ("certificate", "1/1/3", "CT2")]


def test_plain_and_secure_side_by_side(
    house: Callable[..., House], ours: Authority, terms: Terms, ct1: Identity
) -> None:
    """The plain port lets nobody in for whom a certificate is wanted."""
    rows = [Row("OPEN", "127.0.0.0/8"), Row("CT1", "127.0.0.0/8", certificate="CT1")]
    home = house(terms=terms, allow=rows)
    for calling, answer in (("OPEN", 2), ("CT1", 3)):
        wire = raw.Wire(home.listener.port)
        wire.send(raw.request(CONTEXTS, calling=calling))
        assert wire.pdu()[0] == answer
        wire.close()
    assert echo(home, client(ours, ct1))


@pytest.mark.parametrize("layers", [FAST, STOCK], ids=["fast", "stock"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("cut", [1 << 20, 16384, 977])
def test_what_comes_over_tls_is_kept_byte_for_byte(
    house: Callable[..., House], ours: Authority, terms: Terms, ct1: Identity, ct_bytes: Slices, *, layers: Any,
    version: str, cut: int
) -> None:  # fmt: skip
    """However records and PDUs are cut, also when nothing is left on the descriptor and all of it in TLS."""
    home = house(terms=terms, layers=layers)
    context = client(ours, ct1)
    context.maximum_version = ssl.TLSVersion[version]
    wire = SecureWire(home.listener.secure_port, context)
    wire.send(raw.request(CONTEXTS))
    assert wire.pdu()[0] == 2
    stream = b"".join(raw.store_pdus(3, uid, data, message_id=n) for n, (uid, data) in enumerate(ct_bytes))
    wire.send(stream[at : at + cut] for at in range(0, len(stream), cut))
    for _ in ct_bytes:
        assert wire.pdu()[0] == 4
    wire.send(raw.RELEASE)
    assert wire.pdu()[0] == 6
    wire.close()
    found = {}
    for path in home.stored():
        data = home.spool.absolute(path).read_bytes()
        found[path.rpartition("/")[2]] = data[144 + int.from_bytes(data[140:144], "little") :]
    assert sorted(found.values()) == sorted(data for _, data in ct_bytes)
    assert until(lambda: home.listener.associations == 0)


def test_a_record_that_does_not_end_is_cut_off(
    house: Callable[..., House], ours: Authority, terms: Terms, ct1: Identity
) -> None:
    """A peer that stops in the middle of a TLS record blocks neither its own thread nor others."""
    home = house(terms=terms, network_timeout_s=0.5)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client(ours, ct1)
    inner = context.wrap_bio(incoming, outgoing)
    plain = socket.create_connection(("127.0.0.1", home.listener.secure_port), 5)

    def turn(step: Callable[[], Any]) -> Any:
        while True:
            try:
                done = step()
                plain.sendall(outgoing.read())
                return done
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))

    turn(inner.do_handshake)
    turn(lambda: inner.write(raw.request(CONTEXTS)))
    assert turn(lambda: inner.read(6))[0] == 2
    inner.write(raw.pdata(raw.value(1, 3, raw.echo_command())))
    plain.sendall(outgoing.read()[:-7])
    assert until(lambda: home.listener.associations == 1)
    assert echo(home, client(ours, ct1))
    assert until(lambda: home.listener.associations == 0, 10)
    plain.close()


def test_two_hundred_who_say_nothing_hold_up_nobody(
    house: Callable[..., House], ours: Authority, terms: Terms, ct1: Identity
) -> None:
    """In stock pynetdicom one stops all. They are gone when their time is over, and cost no thread meanwhile."""
    home = house(terms=replace(terms, handshake_timeout_s=2.0))
    threads = threading.active_count()
    half = struct.pack(">BHH", 22, 0x0301, 200) + b"\x01"
    silent = [socket.create_connection(("127.0.0.1", home.listener.secure_port)) for _ in range(200)]
    for one in silent[::2]:
        one.sendall(half)
    started = time.monotonic()
    assert echo(home, client(ours, ct1))
    assert time.monotonic() - started < 1.0
    assert threading.active_count() <= threads + 2
    assert until(lambda: home.listener.waiting == 0, 10)
    assert {e.reason for e in home.said(ConnectionDropped)} == {"crowded", "handshake-silent"}
    for one in silent:
        one.close()


def renew(ours: Authority, folder: Path, **how: Any) -> Terms:
    """A server's certificate in files of its own, which can be replaced."""
    fresh = ours.server(file=f"server-{time.monotonic_ns()}", **how)
    for source, name in ((fresh.certificate, "cert.pem"), (fresh.key, "key.pem")):
        shutil.copy(source, folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)
    return Terms(folder / "cert.pem", folder / "key.pem", "none")


def serial(house: House, ours: Authority) -> Any:
    with socket.create_connection(("127.0.0.1", house.listener.secure_port)) as plain:
        with client(ours).wrap_socket(plain) as secured:
            return (secured.getpeercert() or {})["serialNumber"]


def test_a_renewed_certificate_is_used_without_a_restart(
    house: Callable[..., House], ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files are used for who comes next; what is open goes on. Bad files are told, and the old ones stay."""
    monkeypatch.setattr(tls_module, "LOOK_S", 0.05)
    home = house(terms=renew(ours, tmp_path, ends=10))
    first = serial(home, ours)
    open_one = SecureWire(home.listener.secure_port, client(ours))
    open_one.send(raw.request(CONTEXTS))
    assert open_one.pdu()[0] == 2
    renew(ours, tmp_path, ends=50)
    assert until(lambda: serial(home, ours) != first)
    second = serial(home, ours)
    (tmp_path / "key.pem").write_text("rubbish")
    assert until(lambda: home.said(CertificatesNotTaken))
    assert "must be PEM files" in home.said(CertificatesNotTaken)[0].why
    renew(ours, tmp_path, begins=-9, ends=-1)
    assert until(lambda: "expired" in home.said(CertificatesNotTaken)[-1].why)
    assert serial(home, ours) == second
    open_one.send(raw.RELEASE)
    assert open_one.pdu()[0] == 6
    open_one.close()
    days = [round((e.expires_at - time.time()) / 86400) for e in home.said(CertificateRead)]
    assert days == [10, 50]


def test_files_are_read_again_when_asked(ours: Authority, tmp_path: Path) -> None:
    """On SIGHUP, also when nothing looks new."""
    told: list[Any] = []
    secure = Tls(renew(ours, tmp_path), told.append)
    secure.refresh()
    secure.reload_soon()
    secure.refresh()
    assert [type(event) for event in told] == [CertificateRead, CertificateRead]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "key.pem").unlink(), r"receive\.tls\.key: cannot read .*No such file"),
        (lambda f: (f / "cert.pem").write_text("x"), "must be PEM files"),
        (lambda f: shutil.copy(f / "other.key", f / "key.pem"), "is not the key of"),
        (lambda f: shutil.copy(f / "locked.key", f / "key.pem"), "is encrypted.*openssl pkey"),
        (lambda f: shutil.copy(f / "weak.pem", f / "cert.pem"), "RSA 2048"),
        (lambda f: (f / "ca.pem").write_text("x"), r"client_ca.*PEM"),
    ],
    ids=["missing", "no PEM", "other key", "encrypted", "weak", "CA"],
)
def test_files_that_cannot_be_used_say_how_to_mend_them(tmp_path: Path, *, spoil: Callable, said: str) -> None:
    authority = Authority(tmp_path)
    terms = replace(renew(authority, tmp_path), client_ca=authority.certificate, client_certificates="required")
    authority.issue("other")
    authority.issue("locked", password=b"secret")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        authority.issue("weak", rsa=1024)
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=said):
        make_context(terms)


def test_until_when_files_are_good(ours: Authority, terms: Terms) -> None:
    """Of several CAs the first to end; far dates are written in another form (RFC 5280 Section 4.1.2.5)."""
    far = ours.server(file="far", ends=365 * 40)
    found = validities(replace(terms, certificate=far.certificate, crl=ours.revoke(ends=7)))
    days = {name: round((v.ends - time.time()) / 86400) for name, v in found.items()}
    assert days == {"certificate": 365 * 40, "client_ca": 1000, "crl": 7}


def test_a_handshake_in_the_callers_own_thread(ours: Authority, terms: Terms, ct1: Identity) -> None:
    """For other doors: blocking afterwards, with the client's AE title; a silent client costs its deadline only."""
    secure = Tls(replace(terms, handshake_timeout_s=0.3), lambda _: None)
    ours_end, theirs = socket.socketpair()
    with ours_end, theirs:
        started = time.monotonic()
        with pytest.raises(OSError):
            secure.secure(ours_end)
        assert 0.2 < time.monotonic() - started < 2
    ours_end, theirs = socket.socketpair()
    answers: list[Any] = []

    def serve() -> None:
        with secure.secure(ours_end) as secured:
            answers.extend([secure.ae_title_of(secured), secured.recv(5)])

    thread = threading.Thread(target=serve)
    thread.start()
    with client(ours, ct1).wrap_socket(theirs) as mine:
        mine.sendall(b"hello")
        thread.join(5)
    assert answers == ["CT1", b"hello"]
