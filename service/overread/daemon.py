"""Processes and their ends: one keeper, three roles, restarted when they die, stopped in the order of the flow."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from overread import wiring
from overread.domain.errors import ConfigError
from overread.domain.events import SpoolDiscrepancy
from overread.settings import Receive, Settings

if TYPE_CHECKING:
    from overread.receive.listener import Listener
    from overread.receive.stow.server import Server as StowServer
    from overread.receive.tls import Tls

_log = logging.getLogger("overread.daemon")

ROLES = ("listen", "watch", "work")
PR_SET_PDEATHSIG = 1
LOCK_PATIENCE_S = 15.0
STOP_S = 20.0
SWITCH_S = 0.0005  # a thread that has an answer to send must not wait 5 ms for the interpreter
LONGEST_RESTART_S = 30.0


def run_all(config: Path | None, settings: Settings) -> int:
    """Start every role as a process of its own and keep it running until SIGTERM or SIGINT."""
    settings.data_path.mkdir(parents=True, exist_ok=True)
    stopping = _until_signal()
    with _alone(settings, "run"):
        keepers = [_Keeper(role, config) for role in ROLES]
        for keeper in keepers:
            keeper.start()
        _pass_on(signal.SIGHUP, keepers)
        while not stopping.wait(0.1):
            for keeper in keepers:
                keeper.look_after()
        for keeper in keepers:
            keeper.stop()
    return 0


class _Keeper:
    """Keeps one role's process running; a role that dies at once waits longer each time."""

    def __init__(self, role: str, config: Path | None) -> None:
        self.role = role
        self._command = [sys.executable, "-m", "overread", *(("--config", str(config)) if config else ())]
        self._process: subprocess.Popen[bytes] | None = None
        self._wait_s, self._started, self._due = 0.2, 0.0, 0.0

    def start(self) -> None:
        """Start the process; it dies with this one."""
        self._started = time.monotonic()
        role = ["run", "--role", self.role, "--keeper", str(os.getpid())]
        self._process = subprocess.Popen([*self._command, *role], start_new_session=True)

    def look_after(self) -> None:
        """Start it again when it is gone."""
        if self._process is None:
            if time.monotonic() >= self._due:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        lived = time.monotonic() - self._started
        self._wait_s = 0.2 if lived > 10 else min(LONGEST_RESTART_S, self._wait_s * 2)
        _log.warning("%s ended with exit code %s; it starts again in %.1f s", self.role, code, self._wait_s)
        self._process, self._due = None, time.monotonic() + self._wait_s

    def send(self, number: int) -> None:
        """Pass a signal on, if the process runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _pass_on(number: signal.Signals, keepers: list[_Keeper]) -> None:
    def send(_number: int, _frame: FrameType | None) -> None:
        for keeper in keepers:
            keeper.send(number)

    signal.signal(number, send)


def _die_with(keeper_pid: int) -> None:
    # A keeper that is killed must not leave roles behind that hold its ports and locks.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper_pid:
        sys.exit(f"overread: the keeper {keeper_pid} is gone")


def run_role(settings: Settings, role: str, keeper_pid: int | None) -> int:
    """Run one role in this process until SIGTERM or SIGINT, or until the process that keeps it dies."""
    if keeper_pid is not None:
        _die_with(keeper_pid)
    settings.data_path.mkdir(parents=True, exist_ok=True)
    stopping = _until_signal()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    body = {"listen": _listen, "watch": _watch, "work": _work}[role]
    with _alone(settings, role):
        stop = body(settings)
        while not stopping.wait(1.0):
            continue
        stop()
    return 0


def _listen(settings: Settings) -> Callable[[], None]:
    from overread.observe.health import Health
    from overread.receive.clerk import Clerk
    from overread.receive.crew import Crew
    from overread.receive.listener import Listener

    r, o = settings.receive, settings.observe
    store = wiring.spool(settings)
    metrics, herald = wiring.watching(settings, ())
    herald(SpoolDiscrepancy("half-written", store.clear_incoming()))
    metrics.watch_disk(store.root)
    admission = wiring.admission(settings, store)
    clerk = Clerk(_clerk, (settings,), herald)
    crew = Crew(r.processes or _processes(), _porter, (settings,), admission=admission, clerk=clerk, herald=herald)
    intake = wiring.intake(settings, store, clerk.add, herald)
    commitment, tls = wiring.commitment(settings, herald), wiring.tls(settings, herald, admission)
    door, layers = wiring.door(settings), wiring.layers(settings)
    secure, reports = tls if r.tls.port else None, wiring.reports(settings, herald)
    listener = Listener(
        door, admission, intake, herald, layers, tls=secure, crew=crew, commitment=commitment, reports=reports
    )
    _open(listener, settings, tls)
    crew.start()
    stow = wiring.stow(settings, intake, admission, tls)
    if stow is not None:
        _open_stow(stow, settings)
    clerk.start()
    commitment.start()
    _announce(r, listener.port, only_loopback=admission.only_loopback())
    checks = {"spool": wiring.disk_check(settings, store), "ledger": clerk.check, "porters": crew.check}
    beats = (clerk.stuck, crew.stuck)
    health = Health(
        metrics.registry,
        heartbeat=lambda: [name for beat in beats for name in beat()],
        checks=checks,
        host=o.host,
        port=o.listen_port,
    )
    health.start()

    def stop() -> None:
        listener.stop()
        if stow is not None:
            stow.stop()
        crew.stop()
        commitment.stop()
        clerk.stop()
        health.stop()

    return stop


def _announce(r: Receive, port: int, *, only_loopback: bool) -> None:
    reach = "this machine only (the default; see [[receive.allow]])" if only_loopback else "the allow-list"
    _log.info("listening as %s on %s port %d for %s", r.ae_title, r.host, port, reach)
    if r.durability == "none":
        _log.warning("receive.durability is none: a power cut can take acknowledged instances; for measuring only")


def _open(listener: Listener, settings: Settings, tls: Tls | None) -> None:
    r = settings.receive
    try:
        listener.start()
    except OSError as error:
        ports = f"{r.port} or {r.tls.port} (TLS)" if r.tls.port else f"{r.port}"
        raise ConfigError(f"cannot listen on {r.host} port {ports}: {error.strerror}; is it in use?") from None
    if tls is not None:
        signal.signal(signal.SIGHUP, lambda *_: tls.reload_soon())
    if r.tls.port:
        _log.info("secure on port %d, client certificates: %s", listener.secure_port, r.tls.client_certificates)


def _open_stow(stow: StowServer, settings: Settings) -> None:
    s = settings.receive.stow
    try:
        stow.start()
    except OSError as error:
        where = f"{s.host} port {s.port}"
        raise ConfigError(f"cannot listen for STOW-RS on {where}: {error.strerror}; is it in use?") from None
    _log.info("listening for STOW-RS on %s port %d, %s%s", s.host, stow.port, s.path, " over TLS" if s.tls else "")


def _processes() -> int:
    """How many serve associations when the settings do not say: beyond four, the disk is the bound."""
    return max(1, min(4, os.cpu_count() or 1))


def _porter(connection: Connection, settings: Settings) -> None:
    """What runs in each of the listener's processes that serve associations."""
    from overread.observe.logs import install
    from overread.receive.associations import Associations
    from overread.receive.porter import Post, serve

    install(settings.observe.log, settings.observe.level, "porter")
    sys.setswitchinterval(SWITCH_S)
    post = Post(connection)
    intake = wiring.intake(settings, wiring.spool(settings), post.put, post.put)
    commitment, reports = wiring.commitment(settings, post.put), wiring.reports(settings, post.put)
    door, layers = wiring.door(settings), wiring.layers(settings)
    associations = Associations(door, post, intake, post.put, layers, commitment=commitment, reports=reports)
    commitment.start()
    serve(connection, post, associations, commitment.stop)


def _clerk(connection: Connection, settings: Settings) -> None:
    """What runs in the listener's second process."""
    from overread.observe.logs import install
    from overread.receive.clerk import Line, serve
    from overread.receive.commitment.judge import Judge
    from overread.receive.index import Indexer

    install(settings.observe.log, settings.observe.level, "clerk")
    line, store = Line(connection), wiring.spool(settings)
    indexer = Indexer(store, lambda: wiring.ledger(settings), line.say)
    keep_s = settings.receive.commitment.days * 86400
    judge = Judge(
        wiring.docket(settings),
        store,
        lambda: wiring.ledger(settings),
        behind=indexer.check,
        keep_s=keep_s,
        herald=line.say,
    )
    judge.start()
    serve(line, indexer)
    judge.stop()


def _watch(settings: Settings) -> Callable[[], None]:
    from overread.ledger import destinations, views
    from overread.observe.health import Health
    from overread.schedule.clock import Clock

    models = wiring.cards(settings)
    store, books = wiring.spool(settings), wiring.ledger(settings)
    metrics, herald = wiring.watching(settings, models)
    metrics.watch_backlog(lambda: views.backlog(books, time.time()))
    metrics.watch_disk(store.root)
    clock = Clock(herald, threads=6 + len(settings.deliver))
    watch = wiring.Watch(settings, books, store, models, herald)
    wiring.tick_all(clock, watch)
    outboxes = wiring.outboxes(watch)
    destinations.forsake(books, [d.name for d in settings.deliver])
    checks = {"ledger": wiring.ledger_check(books), "spool": wiring.disk_check(settings, store)}
    o = settings.observe
    health = Health(
        metrics.registry,
        heartbeat=lambda: [*clock.stuck(), *(name for one in outboxes for name in one.stuck())],
        checks=checks,
        host=o.host,
        port=o.watch_port,
    )
    health.start()
    clock.start()
    for outbox in outboxes:
        outbox.start()

    def stop() -> None:
        for stopping in [threading.Thread(target=outbox.stop) for outbox in outboxes]:
            stopping.start()
        for outbox in outboxes:
            outbox.stop()
        clock.stop()
        health.stop()
        books.close()

    return stop


def _work(settings: Settings) -> Callable[[], None]:
    from overread.observe.health import Health
    from overread.schedule.shift import Shift, Terms
    from overread.wiring.executors import executor

    s, o = settings.schedule, settings.observe
    models = wiring.cards(settings)
    books = wiring.ledger(settings)
    metrics, herald = wiring.watching(settings, models)
    place = executor(settings, books, models, herald)
    metrics.watch_warm(place.standing, wiring.devices())
    kinds = wiring.result_kinds(settings)
    fast = wiring.express(settings)
    terms = Terms(wiring.worker_name(), s.lease_s, s.retry_s, s.longest_wait_s, fast, place.crowded)
    shift = Shift(
        books,
        {c.name: c for c in models},
        place,
        kinds,
        herald,
        terms=terms,
    )
    health = Health(
        metrics.registry,
        heartbeat=shift.stuck,
        checks={"ledger": wiring.ledger_check(books)},
        host=o.host,
        port=o.work_port,
    )
    health.start()
    first, each = models[: s.keep_warm], s.slots + fast
    threading.Thread(target=place.warm, args=(first, each), name="warm", daemon=True).start()
    shift.start(s.slots)

    def stop() -> None:
        shift.stop(5.0, place.close)
        health.stop()
        books.close()

    return stop


def _until_signal() -> threading.Event:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


@contextmanager
def _alone(settings: Settings, role: str) -> Iterator[None]:
    """Hold the role's lock on the data folder; two services on one folder would read each other's jobs."""
    path = settings.data_path / f"{role}.lock"
    with path.open("w") as file:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"another overread holds {path}: stop it, or give this one a data folder of its own"
                    ) from None
                time.sleep(0.1)
        yield
