"""A DICOMweb server as a destination, played by a small HTTP server that answers as it is told."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from handed import prove, send
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from secured import Papers

from overread.deliver.auth import Credentials
from overread.deliver.stow import Server, StowDestination
from overread.deliver.tls import Tls
from overread.domain.delivery import Outcome, Standing
from overread.domain.errors import ConfigError, Unreachable
from overread.domain.result import Result

Make = Callable[..., tuple[Result, Path]]


class Web:
    """A server whose answers can be changed: ``stow(datasets) -> (status, body)``; it keeps what it stored."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.stow: Callable[[list[tuple[str, bytes]]], tuple[int, dict[str, Any]]] = self.store
        self.guard: Callable[[dict[str, str]], int] = lambda _: 200
        self.tokens = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.server.server_address[1]}/web"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def store(self, objects: list[tuple[str, bytes]]) -> tuple[int, dict[str, Any]]:
        self.kept.update(objects)
        return 200, {"00081199": sequence([{"00081155": value("UI", uid)} for uid, _ in objects])}

    def _handler(web) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                web.asked.append(("POST", self.path, dict(self.headers)))
                if self.path == "/token":
                    self._token(body)
                elif (status := web.guard(dict(self.headers))) != 200:
                    self._say(status, b"")
                else:
                    boundary = self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
                    parts = body.split(b"--" + boundary)[1:-1]
                    parts = [p.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for p in parts]
                    objects = [(str(dcmread(BytesIO(p)).SOPInstanceUID), p) for p in parts]
                    code, said = web.stow(objects)
                    self._say(code, json.dumps(said).encode() if said else b"")

            def do_GET(self) -> None:
                web.asked.append(("GET", self.path, dict(self.headers)))
                status = web.guard(dict(self.headers))
                uid = next((u for u in web.kept if u in self.path), "")
                if status != 200:
                    self._say(status, b"")
                elif "/instances/" in self.path:
                    kind = 'multipart/related; type="application/dicom"; boundary="b"'
                    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + web.kept.get(uid, b"") + b"\r\n--b--"
                    self._say(200 if uid else 404, part, kind)
                else:
                    found = [{"00080018": value("UI", uid)}] if uid else []
                    self._say(200, json.dumps(found).encode())

            def _token(self, body: bytes) -> None:
                form = parse_qs(body.decode())
                who = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
                good = (form["grant_type"], who) == (["client_credentials"], "reader:very secret")
                web.tokens += good
                said = {"access_token": f"token {web.tokens}", "expires_in": 3600, "token_type": "Bearer"}
                self._say(200 if good else 401, json.dumps(said if good else {}).encode(), "application/json")

            def _say(self, status: int, body: bytes, kind: str = "application/dicom+json; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler


def value(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def failed(uid: str, reason: int) -> dict[str, Any]:
    return {"00081198": sequence([{"00081155": value("UI", uid), "00081197": value("US", reason)}])}


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


def to(web: Web, proof: str = "qido", **more: Any) -> StowDestination:
    return StowDestination("web", Server(web.url, timeout_s=5.0, **more), proof=proof)


def test_objects_of_a_study_go_together_and_the_bytes_arrive(web: Web, make_result: Make) -> None:
    made = [make_result(1), make_result(2, pad=300_000), make_result(3, study="1.2.826.0.1.9")]
    assert {told.outcome for told in send(to(web), made).values()} == {Outcome.TAKEN}
    assert [path for kind, path, _ in web.asked] == ["/web/studies/1.2.826.0.1.1", "/web/studies/1.2.826.0.1.9"]
    for result, path in made:
        here, there = dcmread(path), dcmread(BytesIO(web.kept[result.sop_instance_uid]))
        assert here == there
    assert [p.standing for p in prove(to(web), made)] == [Standing.THERE] * 3
    assert [p.standing for p in prove(to(web, "wado"), made)] == [Standing.THERE] * 3


@pytest.mark.parametrize("status", [200, 202, 204])
def test_success_without_the_uid_in_the_answer_is_no_success(web: Web, make_result: Make, status: int) -> None:
    web.stow = lambda _: (status, {})
    (told,) = send(to(web), [make_result(1)]).values()
    assert (told.outcome, "does not name the object" in told.reason) == (Outcome.BUSY, True)
    assert [p.standing for p in prove(to(web), [make_result(1)])] == [Standing.MISSING]
    assert [p.standing for p in prove(to(web, "wado"), [make_result(1)])] == [Standing.MISSING]


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (0xA700, Outcome.BUSY),
        (0x0110, Outcome.BUSY),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0x0122, Outcome.MISCONFIGURED),
        (0x0124, Outcome.MISCONFIGURED),
        (0x0111, Outcome.DUPLICATE),
    ],
)
def test_a_failure_reason_means_what_the_standard_says_whatever_the_http_status(
    web: Web, make_result: Make, reason: int, outcome: Outcome
) -> None:
    for status in (200, 202, 409):
        web.stow = lambda objects, status=status: (status, failed(objects[0][0], reason))
        (told,) = send(to(web), [make_result(1)]).values()
        assert told.outcome is outcome


def test_a_deflated_object_that_is_refused_as_such_goes_inflated(web: Web, make_result: Make) -> None:
    def picky(objects: list[tuple[str, bytes]]) -> tuple[int, dict[str, Any]]:
        syntax = dcmread(BytesIO(objects[0][1])).file_meta.TransferSyntaxUID
        return web.store(objects) if syntax == ExplicitVRLittleEndian else (409, failed(objects[0][0], 0xC122))

    web.stow = picky
    made = make_result(1, syntax=DeflatedExplicitVRLittleEndian)
    (told,) = send(to(web), [made]).values()
    assert told.outcome is Outcome.TAKEN
    assert [p.standing for p in prove(to(web, "wado"), [made])] == [Standing.THERE]


def test_nothing_goes_deflated_where_that_is_not_wanted(web: Web, make_result: Make) -> None:
    made = make_result(1, syntax=DeflatedExplicitVRLittleEndian)
    (told,) = send(to(web, deflated=False), [made]).values()
    assert told.outcome is Outcome.TAKEN
    kept = dcmread(BytesIO(web.kept[made[0].sop_instance_uid]))
    assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_what_comes_back_changed_is_no_proof_and_only_names_are_told(web: Web, make_result: Make) -> None:
    made = make_result(1)
    send(to(web), [made])
    changed = dcmread(BytesIO(web.kept[made[0].sop_instance_uid]))
    changed.PatientName, changed.Rows = "ANOTHER^NAME", 9
    buffer = BytesIO()
    changed.save_as(buffer)
    web.kept[made[0].sop_instance_uid] = buffer.getvalue()
    (proven,) = prove(to(web, "wado"), [made])
    assert (proven.standing, proven.reason) == (
        Standing.ALTERED,
        "what it keeps differs from what was sent in PatientName, Rows",
    )
    changed.Rows = 8
    buffer = BytesIO()
    changed.save_as(buffer)
    web.kept[made[0].sop_instance_uid] = buffer.getvalue()
    (proven,) = prove(to(web, "wado"), [made], coerced=True)
    assert (proven.standing, proven.reason) == (Standing.THERE, "it changed PatientName, as it had announced")


def test_each_way_to_say_who_we_are(web: Web, make_result: Make, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("very secret\n")
    basic = "Basic " + base64.b64encode(b"reader:very secret").decode()
    token_url = web.url.replace("/web", "/token")
    oauth = {"token_url": token_url, "client_id": "reader", "client_secret_file": str(secret), "scope": "dicom"}
    for credentials, header in (
        (Credentials("basic", user="reader", password_file=str(secret)), basic),
        (Credentials("bearer", token_file=str(secret)), "Bearer very secret"),
        (Credentials("oauth2", **oauth), "Bearer token 1"),
    ):
        web.guard = lambda headers, header=header: 200 if headers.get("Authorization") == header else 401
        there = to(web, credentials=credentials)
        assert [t.outcome for t in send(there, [make_result(1)]).values()] == [Outcome.TAKEN]
        assert "answers" in there.check()
    assert web.tokens == 1, "a token is used as long as it lives"
    web.guard = lambda headers: 200 if headers.get("Authorization") == "Bearer token 2" else 401
    again = [t.outcome for t in send(there, [make_result(1)]).values()]
    assert again == [Outcome.TAKEN], "one that is refused is renewed"
    web.guard = lambda _: 403
    with pytest.raises(Unreachable, match=r"configuration fault: it answered 403 .* check auth"):
        there.check()
    secret.write_text("wrong")
    with pytest.raises(Unreachable, match="check client_id and client_secret_file"):
        to(web, credentials=Credentials("oauth2", **oauth)).check()
    secret.unlink()
    with pytest.raises(ConfigError, match=r"token_file .* cannot be read"):
        to(web, credentials=Credentials("bearer", token_file=str(secret)))


def test_tls_with_a_certificate_of_our_own(papers: Papers, make_result: Make) -> None:
    web = Web(papers.server_context(client_must_show=True))
    try:
        mine = Tls(str(papers.ca), str(papers.client), str(papers.client_key))
        assert [t.outcome for t in send(to(web, tls=mine), [make_result(1)]).values()] == [Outcome.TAKEN]
        with pytest.raises(Unreachable, match=r"TLS failed|cannot be reached"):
            to(web, tls=Tls(str(papers.ca))).check()
        with pytest.raises(Unreachable, match="TLS failed"):
            to(web, tls=Tls(str(papers.other_ca))).check()
    finally:
        web.server.shutdown()
        web.server.server_close()


@pytest.mark.parametrize(("status", "why"), [(404, "is url the root"), (500, "answered 500"), (503, "answered 503")])
def test_an_error_of_the_server_is_tried_later(web: Web, make_result: Make, status: int, why: str) -> None:
    web.guard = lambda _: status
    with pytest.raises(Unreachable, match=why):
        send(to(web), [make_result(1)])


def test_a_server_that_is_down_is_tried_later(closed_port: int, make_result: Make) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        send(StowDestination("web", Server(f"http://127.0.0.1:{closed_port}/", timeout_s=2.0)), [make_result(1)])
