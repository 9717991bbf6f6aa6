"""Threads that wait for what they need, instead of looking for it every millisecond.

An association has two threads: one reads the network and turns the state machine (``WaitingDUL``), one negotiates and
serves (``WaitingAssociation``). Each waits until the other, its socket or a timer has something for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.timer import Timer

_log = logging.getLogger(__name__)
LONGEST_WAIT_S = 60.0


class SteadyTimer(Timer):  # type: ignore[misc]
    """A timer that no change of the wall clock expires."""

    _started: float | None = None

    @property
    def expired(self) -> bool:
        return self.timeout is not None and self._started is not None and self.remaining < 0

    @property
    def remaining(self) -> float:
        """Seconds that are left; LONGEST_WAIT_S when it never expires."""
        if self.timeout is None:
            return LONGEST_WAIT_S
        return float(self.timeout) - (time.monotonic() - self._started if self._started is not None else 0.0)

    @property
    def running(self) -> bool:
        return self._started is not None and self.timeout is not None

    def start(self) -> None:
        self._started = time.monotonic()

    def restart(self) -> None:
        self.start()

    def stop(self) -> None:
        self._started = None


class RingingQueue(queue.Queue[Any]):
    """A queue that wakes whoever waits for more than this queue."""

    def __init__(self, ring: Callable[[], object]) -> None:
        super().__init__()
        self._ring = ring

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._ring()


class Doorbell:
    """A descriptor that becomes readable when another thread rings."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        with self._lock:
            if self._write >= 0:
                with contextlib.suppress(BlockingIOError):  # it rings already
                    os.write(self._write, b"!")

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 512)

    def close(self) -> None:
        with self._lock:
            os.close(self._read)
            os.close(self._write)
            self._read = self._write = -1


class WaitingDUL(DULServiceProvider):  # type: ignore[misc]
    """The network thread."""

    _bell: Doorbell
    _idle_timer: Any
    artim_timer: Any
    to_provider_queue: Any

    def equip_reactor(self) -> None:
        """Make a stock provider one of these, before its thread starts."""
        self.daemon = True
        self._bell = Doorbell()
        pending, self.to_provider_queue = self.to_provider_queue, RingingQueue(self._bell.ring)
        while not pending.empty():
            self.to_provider_queue.put(pending.get())
        self.to_user_queue = RingingQueue(self.assoc.wake)
        self._idle_timer = SteadyTimer(self._idle_timer.timeout)
        self.artim_timer = SteadyTimer(self.artim_timer.timeout)

    def run(self) -> None:
        """Turn the state machine until the association has ended."""
        try:
            self._idle_timer.start()
            self.assoc._dul_ready.set()
            while not self._kill_thread:
                self._turn()
        except Exception as error:
            # The edge to the peer: pynetdicom raises on events that its table does not have.
            _log.info("an association ended by %s", type(error).__name__)
            self._hard_stop()
        finally:
            self._bell.close()
            self.to_user_queue.put(None)  # who waits for a request need not wait until its time-out

    def kill_dul(self) -> None:
        super().kill_dul()
        self._bell.ring()

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if threading.current_thread() is not self:
            self.join()
        return True

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        busy = self._process_recv_primitive()
        if not busy and self._is_transport_event():
            self._idle_timer.restart()
            busy = True
        try:
            event = self.event_queue.get_nowait()
        except queue.Empty:
            if not busy:
                self._wait()
        else:
            self.state_machine.do_action(event)

    def _wait(self) -> None:
        if self.socket is not None and getattr(self.socket, "holds_back", False):
            return
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        wire = self.socket.socket if self.socket is not None else None
        if wire is not None and wire.fileno() >= 0:
            poll.register(wire, select.POLLIN)
        ready = poll.poll(self._patience() * 1000)
        if any(descriptor == self._bell.fileno() for descriptor, _ in ready):
            self._bell.hush()

    def _patience(self) -> float:
        timers = [t.remaining for t in (self.artim_timer, self._idle_timer) if t.running]
        return float(max(0.001, min([LONGEST_WAIT_S, *timers])))

    def _hard_stop(self) -> None:
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        with contextlib.suppress(Exception):  # the socket may be gone already
            self.socket.send(abort.encode())
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True


class WaitingAssociation(Association):  # type: ignore[misc]
    """The thread that negotiates and serves."""

    _woken: threading.Event

    def equip_reactor(self) -> None:
        """Make a stock association one of these, before its threads start."""
        self._woken = threading.Event()
        self.dimse.msg_queue = RingingQueue(self.wake)

    def wake(self) -> None:
        """There is something to look at."""
        self._woken.set()

    def kill(self) -> None:
        self._kill = True
        self.wake()
        super().kill()

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            # The edge to the peer: pynetdicom's negotiation raises on requests that it does not foresee, and would
            # leave the connection behind, and the thread that reads it.
            _log.info("an association ended by %s", type(error).__name__)
            self.acse.send_abort(0x02)
            self.kill()

    def _run_reactor(self) -> None:
        self._is_paused = False
        while not self._kill and not self._look():
            self._is_paused = True
            self._woken.wait(min(LONGEST_WAIT_S, max(0.001, self.dul._idle_timer.remaining)))
            self._woken.clear()
            self._reactor_checkpoint.wait()
            self._is_paused = False

    def _look(self) -> bool:
        """Serve one message or see to the end of the association; True when it has ended."""
        context_id, message = self.dimse.get_msg(block=False)
        if message:
            self.wake()  # there may be another behind it
            self._serve_request(message, context_id)
        if self.is_established and self.acse.is_release_requested():
            self._release()
        elif self.acse.is_aborted():
            self._aborted()
        elif self.dul.idle_timer_expired():
            _log.info("an association was idle for too long")
            self.abort()
        elif self.dul.is_alive():
            return False
        self.kill()
        return True

    def _release(self) -> None:
        self.acse.send_release(is_response=True)
        self.is_released, self.is_established = True, False
        evt.trigger(self, evt.EVT_RELEASED, {})

    def _aborted(self) -> None:
        self.dul.receive_pdu(wait=False)
        self.is_aborted, self.is_established = True, False
        evt.trigger(self, evt.EVT_ABORTED, {})
