"""Who may store by STOW-RS, and by which name."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from overread.domain.errors import ConfigError
from overread.domain.events import RequestAnswered, Trouble
from overread.receive.stow.doorkeeper import AllowList, Guest, TokenFile, Turned, Visitor, bearer, require_secret

from ..conftest import until
from .conftest import Clinic
from .sending import store

TOKEN, OTHER = "0123456789abcdef-first", "0123456789abcdef-other"
HOME = "127.0.0.1"


def token_file(folder: Path, text: str, name: str = "PACS") -> TokenFile:
    path = folder / f"{name}.token"
    path.write_text(text)
    return TokenFile(name, path)


def test_a_token_gives_a_name_and_no_token_none(tmp_path: Path) -> None:
    judge = AllowList([("*", "127.0.0.0/8")], [token_file(tmp_path, f"{TOKEN}\n{OTHER}\n")], "OVERREAD")
    assert judge(Visitor(HOME, TOKEN)) == judge(Visitor(HOME, OTHER)) == Guest("PACS", "OVERREAD")
    for token in (None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20):
        turned = judge(Visitor(HOME, token))
        assert isinstance(turned, Turned) and turned.status == 401, token


def test_a_client_certificate_is_as_good_as_a_token(tmp_path: Path) -> None:
    judge = AllowList([("CT1", "127.0.0.0/8")], [token_file(tmp_path, TOKEN)], "OVERREAD")
    assert judge(Visitor(HOME, None, "CT1")) == Guest("CT1", "OVERREAD")
    for turned in (judge(Visitor(HOME, None, "CT2")), judge(Visitor(HOME, TOKEN))):
        assert isinstance(turned, Turned) and turned.status == 403


def test_without_tokens_the_address_is_enough() -> None:
    judge = AllowList([("*", "127.0.0.0/8"), ("MR1", "::1/128")], [], "OVERREAD")
    assert judge(Visitor(HOME)) == Guest("STOW-RS", "OVERREAD")
    assert judge(Visitor("::ffff:127.0.0.1")) == Guest("STOW-RS", "OVERREAD")
    assert judge(Visitor("::1%lo")) == Guest("MR1", "OVERREAD")
    turned = judge(Visitor("10.0.0.1"))
    assert isinstance(turned, Turned) and turned.status == 403


def test_a_token_can_change_while_it_runs(tmp_path: Path) -> None:
    file = token_file(tmp_path, TOKEN)
    assert file.holds(TOKEN.encode())
    (tmp_path / "new").write_text(OTHER)
    (tmp_path / "new").replace(tmp_path / "PACS.token")
    assert file.holds(OTHER.encode()) and not file.holds(TOKEN.encode())
    (tmp_path / "PACS.token").unlink()
    assert not file.holds(OTHER.encode())


@pytest.mark.parametrize("text", ["", "short", "\n \n"])
def test_a_file_without_a_token_is_named_with_the_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand"):
        token_file(tmp_path, text).require()
    with pytest.raises(ConfigError, match="cannot be read"):
        TokenFile("PACS", tmp_path / "none").require()


def test_nobody_listens_to_the_world_without_asking_who_it_is() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        require_secret(host, has_tokens=False, has_certificates=False)
    for host in ("0.0.0.0", "::", "10.0.0.5", "pacs.example.org"):
        require_secret(host, has_tokens=True, has_certificates=False)
        require_secret(host, has_tokens=False, has_certificates=True)
        with pytest.raises(ConfigError, match=r"receive\.stow\.tokens"):
            require_secret(host, has_tokens=False, has_certificates=False)


def test_bearer_tokens_are_read_as_rfc_6750_writes_them() -> None:
    assert [bearer(text) for text in ("Bearer a.b", "bearer  a.b ", "Basic a.b", "Bearer", "", None)] == [
        *["a.b"] * 2,
        *[None] * 4,
    ]


def test_over_the_wire(clinic: Callable[..., Clinic], tmp_path: Path, files: list[bytes]) -> None:
    judge = AllowList([("*", "127.0.0.0/8")], [token_file(tmp_path, TOKEN)], "OVERREAD")
    home = clinic(doorkeeper=judge)
    reply = store(home.port, files[:1])
    assert (reply.status, reply.fields["WWW-Authenticate"]) == (401, 'Bearer realm="overread"')
    reply = store(home.port, files[:1], f"Authorization: Bearer {OTHER}")
    assert reply.status == 401 and "invalid_token" in reply.fields["WWW-Authenticate"]
    assert home.stored() == {}
    assert store(home.port, files[:1], f"Authorization: Bearer {TOKEN}").status == 200
    assert home.arrivals[0].calling_ae == "PACS"
    assert until(lambda: len(home.said(RequestAnswered)) == 3)
    assert [e.calling_ae for e in home.said(RequestAnswered)] == ["", "", "PACS"]
    assert TOKEN not in repr(home.events) and OTHER not in repr(home.events)


def test_a_stranger_is_turned_away_whatever_it_asks_for(clinic: Callable[..., Clinic], files: list[bytes]) -> None:
    home = clinic(doorkeeper=AllowList([("*", "10.0.0.0/8")], [], "OVERREAD"))
    assert {store(home.port, files[:1], target=target).status for target in ("/", "/dicom-web/studies")} == {403}
    busy = clinic(doorkeeper=lambda _: Turned(503, "not now", 7))
    assert store(busy.port, files[:1]).fields["Retry-After"] == "7"


def test_a_fault_in_the_doorkeeper_lets_nobody_in(clinic: Callable[..., Clinic], files: list[bytes]) -> None:
    home = clinic(doorkeeper=lambda _: 1 / 0)
    assert store(home.port, files[:1]).status == 500
    assert home.stored() == {} and home.said(Trouble)


def _certificate(folder: Path) -> Path:
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = folder / "tls.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", made, "-out", folder / "crt"], check=True, capture_output=True)
    made.write_text(made.read_text() + (folder / "crt").read_text())
    return made


def test_over_tls_and_silence_in_the_handshake_holds_up_nobody(
    clinic: Callable[..., Clinic], tmp_path: Path, ct_bytes: list[tuple[str, bytes]], files: list[bytes]
) -> None:
    pem = _certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)

    def secure(connected: socket.socket) -> ssl.SSLSocket:
        return server.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)

    home = clinic(secure=secure, title_of=lambda _: "CERT1", header_s=1.0)
    silent = [socket.create_connection((HOME, home.port)) for _ in range(20)]
    client = ssl.create_default_context(cafile=str(pem))
    from .sending import head, read_reply, related

    body = related(files)
    with client.wrap_socket(socket.create_connection((HOME, home.port), 10), server_hostname="localhost") as wire:
        wire.sendall(head(f"Content-Length: {len(body)}") + body)
        assert read_reply(wire).status == 200
    assert home.stored() == dict(ct_bytes) and home.arrivals[0].calling_ae == "CERT1"
    assert until(lambda: home.server.connections == 0)
    for one in silent:
        one.close()
