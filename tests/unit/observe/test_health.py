"""Health and metrics over real sockets, also for guests who behave badly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from overread.domain.errors import ConfigError
from overread.observe.checks import Pulse, Questions
from overread.observe.health import Health
from overread.observe.metrics import Metrics

Serve = Callable[..., Health]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers on free ports and stops them afterwards."""
    started: list[Health] = []

    def start(**given: Any) -> Health:
        settings: dict[str, Any] = {"heartbeat": list, "checks": {}} | given
        health = Health(Metrics("1").registry, **settings)
        health.start()
        started.append(health)
        return health

    yield start
    for health in started:
        health.stop()


def ask(health: Health, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{health.port}{path}"
    return httpx.request(method, url, headers=headers, trust_env=False, timeout=20)


def test_metrics_as_text_and_as_openmetrics(serve: Serve) -> None:
    health = serve()
    plain = ask(health, "/metrics", Accept="*/*")
    assert plain.status_code == 200
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "overread_build_info" in plain.text
    rich = ask(health, "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert rich.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "overread_build_info" in [f.name for f in text_string_to_metric_families(rich.text)][-1:]


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=x", "text/plain;version=", ";;;,", "\xff"])
def test_a_strange_accept_header_gets_metrics_all_the_same(serve: Serve, accept: str) -> None:
    health = serve()
    with socket.create_connection(("127.0.0.1", health.port), 10) as guest:
        guest.sendall(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode("latin-1"))
        assert b"200" in guest.recv(100)


def test_alive_until_a_loop_is_stuck(serve: Serve) -> None:
    stuck: list[str] = []
    health = serve(heartbeat=lambda: stuck)
    assert (ask(health, "/livez").status_code, ask(health, "/livez").text) == (200, "ok\n")
    stuck.append("clock (61 s)")
    answer = ask(health, "/livez")
    assert (answer.status_code, answer.text) == (503, "stuck: clock (61 s)\n")


def test_a_heartbeat_that_raises_is_not_alive(serve: Serve) -> None:
    def fail() -> list[str]:
        raise RuntimeError("secret")

    answer = ask(serve(heartbeat=fail), "/livez")
    assert (answer.status_code, answer.text) == (503, "stuck: the heartbeat failed: RuntimeError\n")


def test_ready_only_when_every_check_passes(serve: Serve) -> None:
    def broken() -> str | None:
        raise OSError("secret")

    assert ask(serve(checks={"ledger": lambda: None}), "/readyz").text == "ok\n"
    health = serve(checks={"disk": lambda: "512 MB free,\n1024 needed", "ledger": lambda: None, "models": broken})
    answer = ask(health, "/readyz")
    assert answer.status_code == 503
    assert answer.text == "disk: 512 MB free, 1024 needed\nmodels: the check itself failed: OSError\n"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../livez", "/favicon.ico", "/%00"])
def test_other_pages_are_not_found(serve: Serve, path: str) -> None:
    health = serve()
    with socket.create_connection(("127.0.0.1", health.port), 10) as guest:
        guest.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        assert b" 404 " in guest.recv(100)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(serve: Serve, method: str) -> None:
    answer = ask(serve(), "/livez", method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_without_the_body(serve: Serve) -> None:
    answer = ask(serve(), "/livez", "HEAD")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "3", b"")


@pytest.mark.parametrize("drip", [b"", b"G"], ids=["silent", "one byte now and then"])
def test_a_slow_guest_is_cut_off(serve: Serve, drip: bytes) -> None:
    health = serve(client_s=0.5)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", health.port), 10) as guest:
        guest.settimeout(0.2)
        while time.monotonic() - begun < 8:
            try:
                if guest.recv(1) == b"":
                    break
            except TimeoutError:
                if drip:
                    guest.send(drip)
            except ConnectionError:
                break
    assert time.monotonic() - begun < 4


def test_a_crowd_of_silent_guests_is_gone_after_their_time(serve: Serve) -> None:
    health = serve(client_s=0.5)
    guests = [socket.create_connection(("127.0.0.1", health.port), 10) for _ in range(40)]
    try:
        assert sum(t.name.startswith("Thread-") for t in threading.enumerate()) <= 40
        time.sleep(1.5)
        assert ask(health, "/livez").status_code == 200
    finally:
        for guest in guests:
            guest.close()


def test_rubbish_is_answered_or_cut_off_and_the_next_guest_served(serve: Serve) -> None:
    health = serve(client_s=1.0)
    for rubbish in (b"\x00" * 1000, b"GET\r\n\r\n", b"A" * 100_000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        with socket.create_connection(("127.0.0.1", health.port), 10) as guest:
            guest.sendall(rubbish)
    assert ask(health, "/livez").status_code == 200


def test_a_port_that_is_taken_names_the_remedy(serve: Serve) -> None:
    health = serve()
    second = Health(Metrics("1").registry, heartbeat=list, checks={}, port=health.port)
    with pytest.raises(ConfigError, match=rf"port {health.port}.*\[observe\]"):
        second.start()
    second.stop()


def test_the_port_is_free_again_after_stop(serve: Serve) -> None:
    health = serve()
    health.stop()
    assert serve(port=health.port).port == health.port


def test_ipv6(serve: Serve) -> None:
    try:
        health = serve(host="::1")
    except ConfigError:
        pytest.skip("no IPv6 on this machine")
    assert httpx.get(f"http://[::1]:{health.port}/livez", trust_env=False).text == "ok\n"


def test_pulse_names_the_loops_that_do_not_turn() -> None:
    now = [0.0]
    pulse = Pulse({"clock": 10.0, "delivery": 60.0}, now=lambda: now[0])
    now[0] = 9.0
    assert pulse.stuck() == []
    now[0] = 11.0
    assert pulse.stuck() == ["clock (11 s)"]
    pulse.beat("clock")
    assert pulse.stuck() == []
    with pytest.raises(KeyError):
        pulse.beat("clok")


def test_a_hanging_check_costs_one_thread_and_not_the_answer() -> None:
    release, asked = threading.Event(), list[int]()

    def hang() -> str | None:
        asked.append(1)
        release.wait(20)
        return None

    questions = Questions({"disk": hang, "ledger": lambda: None}, patience_s=0.1)
    for _ in range(3):
        assert questions.failing() == {"disk": "no answer within 0.1 s"}
    assert len(asked) == 1
    release.set()
    time.sleep(0.05)
    assert questions.failing() == {}
