"""Metrics and health over HTTP: ``/metrics``, ``/livez`` (restart me if not), ``/readyz`` (send me work if so)."""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest

from overread.domain.errors import ConfigError
from overread.observe.checks import Check, Questions

_log = logging.getLogger(__name__)
_TEXT: Final = "text/plain; charset=utf-8"
_MOST_CLIENTS: Final = 32
_CLIENT_S: Final = 5.0


class Health:
    """An HTTP server in daemon threads, for one role.

    ``heartbeat`` names what is stuck, nothing when the role is alive; ``checks`` give a reason or None. Port 0 takes a
    free one; ``port`` is the real one once ``start`` has returned. A client has ``client_s`` seconds in all for its
    request, and again for taking the answer; more than 32 at once are cut off.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        heartbeat: Callable[[], Sequence[str]],
        checks: Mapping[str, Check],
        host: str = "127.0.0.1",
        port: int = 0,
        client_s: float = _CLIENT_S,
    ) -> None:
        self.port = port
        self._host = host
        self._pages = _Pages(registry, heartbeat, Questions(checks), client_s)
        self._server: _Server | None = None

    def start(self) -> None:
        """Bind and serve. Raises ConfigError when the address cannot be had."""
        try:
            self._server = _Server(self._host, self.port, self._pages)
        except OSError as error:
            raise ConfigError(
                f"metrics and health cannot listen on {self._host} port {self.port}: {error.strerror}; "
                "choose another address or port under [observe]"
            ) from None
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True).start()

    def stop(self) -> None:
        """Stop serving and give the port back; nothing when it never started."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Pages:
    """What is answered, as (status, content type, body)."""

    def __init__(
        self, registry: CollectorRegistry, heartbeat: Callable[[], Sequence[str]], questions: Questions, client_s: float
    ) -> None:
        self.client_s = client_s
        self._registry = registry
        self._heartbeat = heartbeat
        self._questions = questions

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        match path.partition("?")[0]:
            case "/metrics":
                return self._metrics(accept)
            case "/livez":
                return self._livez()
            case "/readyz":
                failing = self._questions.failing()
                return _lines([f"{name}: {_one_line(reason)}" for name, reason in failing.items()])
        return 404, _TEXT, b"not found; there are /metrics, /livez and /readyz\n"

    def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        try:
            encode, kind = choose_encoder(accept)
        except (ValueError, TypeError):  # a version in the header that is no version
            encode, kind = generate_latest, "text/plain; version=0.0.4; charset=utf-8"
        return 200, kind, encode(self._registry)

    def _livez(self) -> tuple[int, str, bytes]:
        try:
            return _lines([f"stuck: {_one_line(name)}" for name in self._heartbeat()])
        except Exception as error:  # an edge: a heartbeat that cannot be felt is no heartbeat
            return _lines([f"stuck: the heartbeat failed: {type(error).__name__}"])


def _lines(failing: Sequence[str]) -> tuple[int, str, bytes]:
    text = "\n".join(failing) or "ok"
    return (503 if failing else 200), _TEXT, f"{text}\n".encode("utf-8", "backslashreplace")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:500]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * _MOST_CLIENTS

    def __init__(self, host: str, port: int, pages: _Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._room = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """As HTTPServer, but without asking DNS for a name that nobody uses."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        _log.debug("a client of the health server went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    error_message_format, error_content_type = "%(code)d %(message)s\n", _TEXT

    def setup(self) -> None:
        """One deadline for the whole request, so that a byte now and then does not hold a thread."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_UntilDeadline(self.connection, self.server.pages.client_s))

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _refuse(self) -> None:
        self._send(405, _TEXT, b"only GET and HEAD\n", with_body=True)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, with_body: bool) -> None:
        try:
            status, kind, body = self.server.pages.answer(self.path, self.headers.get("Accept", ""))
        except Exception as error:  # an edge: a page that breaks is an answer, too
            _log.error("the page %r failed: %s", self.path[:100], type(error).__name__)
            status, kind, body = 500, _TEXT, f"{type(error).__name__}\n".encode()
        self._send(status, kind, body, with_body)

    def _send(self, status: int, kind: str, body: bytes, with_body: bool) -> None:
        self.connection.settimeout(self.server.pages.client_s)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def version_string(self) -> str:
        """No version for strangers; it is a metric."""
        return "overread"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: Prometheus makes one every few seconds, and they hold what a stranger wrote."""


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until ``seconds`` after it was made, then raises TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
