"""The listener is quick to come, light, and not to be shut out by guests that behave badly or not at all."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import ROLES, Service, cpu_s, echo, scan, small_study, wait_for
from material import make
from wire import Turned, associated

from overread.domain.errors import Unreachable

pytestmark = pytest.mark.alone

Make = Callable[..., Service]


@pytest.fixture
def listener(service: Make) -> Service:
    """The role ``listen`` alone, ready, with room for four associations."""
    return service(role="listen", receive={"max_associations": 4}).start()


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), 10)


@contextlib.contextmanager
def connections(service: Service, count: int, first_bytes: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many TCP connections, on each of which something was said and nothing follows."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(service)) for _ in range(count)]
        for one in opened:
            one.sendall(first_bytes)
        yield opened


def test_it_answers_soon_after_its_start(service: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """A scanner must not meet a closed door for long after a restart."""
    listening = service(role="listen")
    started = time.monotonic()
    listening.start(wait=False)
    wait_for(lambda: _connects(listening), 30, "the port to open")
    assert echo(listening.peer)
    took = time.monotonic() - started
    with capsys.disabled():
        print(f"\nfirst C-ECHO {took:.2f} s after the start of the listener")
    bound = 4.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert took < bound


def _connects(service: Service) -> bool:
    try:
        connect(service).close()
    except OSError:
        return False
    return True


def test_it_never_loads_torch(listener: Service, tmp_path: Path) -> None:
    """Not at start and not after a study: no torch or monai in its memory, and less than 250 MB of it."""
    assert scan(listener, small_study(tmp_path, "light").files).stored == 24
    maps = Path(f"/proc/{listener.pid}/maps").read_text()
    assert "libtorch" not in maps and "/monai/" not in maps and "/scipy/" not in maps
    status = dict(line.split(":", 1) for line in Path(f"/proc/{listener.pid}/status").read_text().splitlines())
    assert int(status["VmRSS"].split()[0]) < 250_000


@pytest.mark.slow
def test_an_idle_service_costs_next_to_nothing(service: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Keeper, three roles and a warm model, with nothing to do: below 15 % of one core over five seconds."""
    whole = service().start()
    wait_for(lambda: '"event":"ModelLoaded"' in whole.log.read_text(), 120, "the tiny model to be loaded")
    wait_for(whole.model_pids, 10, "the process of the loaded model to be there")
    pids = {"keeper": whole.pid, **{r: whole.role_pid(r) or 0 for r in ROLES}, "model": whole.model_pids()[0]}
    before, started = {n: cpu_s(p) for n, p in pids.items()}, time.monotonic()
    wait_for(lambda: time.monotonic() - started > 5, 10)
    seconds = time.monotonic() - started
    spent = {n: (cpu_s(p) - before[n]) / seconds for n, p in pids.items()}
    with capsys.disabled():
        print("\nidle: " + ", ".join(f"{n} {share:.1%}" for n, share in spent.items()) + " of a core")
    assert sum(spent.values()) < 0.15
    assert not (died := [line for line in whole.log.read_text().splitlines() if "WorkerDied" in line]), died


def test_a_full_disk_refuses_for_the_moment(service: Make, tmp_path: Path) -> None:
    """Less free than the settings want: rejected transient, and /readyz says so; nothing is kept."""
    full = service(role="listen", receive={"min_free_mb": 1 << 30}).start(wait=False)
    wait_for(lambda: full.page("listen", "readyz")[0], 60, "an answer of /readyz")
    status, text = full.page("listen", "readyz")
    assert status == 503 and "MB free" in text
    with pytest.raises(Unreachable, match=r"(?i)transient.*congestion"):
        scan(full, small_study(tmp_path, "full").files[:1], tries=1)
    assert not list((full.data / "spool" / "instances").rglob("*.dcm"))


def test_bare_connections_take_no_slot(listener: Service) -> None:
    """What load balancers and port scans do: three times as many TCP connections as there may be associations."""
    with connections(listener, 12):
        assert echo(listener.peer)
    assert echo(listener.peer)


def test_half_a_pdu_locks_nobody_out(listener: Service, tmp_path: Path) -> None:
    """Twenty guests stop in the middle of their A-ASSOCIATE-RQ; a scanner is served meanwhile."""
    half = struct.pack(">BBL", 0x01, 0, 200) + b"\0\x01" + bytes(30)
    with connections(listener, 20, half):
        assert echo(listener.peer)
        assert scan(listener, small_study(tmp_path, "half").files).stored == 24


def test_the_limit_of_associations_is_told_and_ends(listener: Service) -> None:
    """Two of a peer are at work: the third is told to come later, and is served once one of them has gone."""
    with contextlib.ExitStack() as stack:
        for seed in (1, 2):
            made = make(random.Random(seed), 10_000)
            assert stack.enter_context(associated(listener.port)).store(made.uid, made.data) == 0x0000
        with pytest.raises(Turned) as told, associated(listener.port):
            pytest.fail("a third was let in")
        assert told.value.answer == (2, 3, 2)  # transient, presentation layer, local limit exceeded
    wait_for(lambda: echo(listener.peer), 10, "an answer once there is room")


def test_a_pdu_longer_than_negotiated_is_cut_off(listener: Service) -> None:
    """A stranger announces a PDU of a gigabyte: its connection ends, memory does not."""
    with connections(listener, 1, struct.pack(">BBL", 0x01, 0, 1 << 30)) as (guest,):
        guest.settimeout(20)
        with contextlib.suppress(OSError):
            while guest.recv(4096):
                continue
    assert echo(listener.peer)
