"""Jobs read on a Ray cluster: the same job function in an actor for each place, wherever Ray has put it.

Ray holds nothing that matters: the ledger says which jobs there are and who has them, results lie in the spool, which
is under the same path on every node. A node that goes away takes its attempts along; their jobs are read again.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a hospital's cluster tells nobody about itself

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from overread import wiring
from overread.domain.card import Card
from overread.domain.death import Death
from overread.domain.errors import Canceled, ConfigError, OverreadError, Stumbled, WorkerLost
from overread.domain.events import Event
from overread.domain.job import Job
from overread.domain.result import Result
from overread.domain.warm import Warm
from overread.ports import Herald, Progress
from overread.settings import Settings

LOOK_S = 0.25
POLITE_S = 2.0
ANSWER_S = 5.0


class Reader:
    """What runs on a node: one journey with processes of its own. A Ray actor whose calls may overlap."""

    def __init__(self, settings: Settings) -> None:
        from overread.wiring.executors import local

        self._events: list[Event] = []
        self._fraction, self._unwanted = 0.0, threading.Event()
        self._books = wiring.ledger(settings)
        folder = settings.data_path / "workers" / f"{socket.gethostname()}-{os.getpid()}"
        self._local = local(settings, self._books, (), self._events.append, folder)

    def read(self, job: Job, card: Card) -> tuple[list[Result], list[Event]]:
        """One attempt; returns its results, and what was told of on the way."""
        self._fraction = 0.0
        self._unwanted.clear()
        self._events.clear()
        return list(self._local(job, card, self._heard)), list(self._events)

    def standing(self) -> float:
        """How far the attempt is."""
        return self._fraction

    def stop(self) -> None:
        """Nobody wants the attempt any more."""
        self._unwanted.set()

    def _heard(self, fraction: float) -> None:
        self._fraction = fraction
        if self._unwanted.is_set():
            raise Canceled("the job was canceled or superseded, or its lease was lost")


class Cluster:
    """An ``Executor`` on the Ray cluster that the settings name, with an actor for each attempt at a time.

    Raises ConfigError when there is none.
    """

    def __init__(self, settings: Settings, herald: Herald) -> None:
        s = settings.schedule
        self._settings, self._herald = settings, herald
        self._options: dict[str, Any] = {"num_cpus": s.cpu_threads or 1, "num_gpus": s.ray_gpus, "max_concurrency": 3}
        self._idle: list[Any] = []
        self._lock, self._closed, self._reading = threading.Lock(), False, 0
        self._left = threading.Condition(self._lock)
        try:
            ray.init(address=s.ray_address, namespace="overread", configure_logging=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster answers at schedule.ray_address {s.ray_address!r} ({type(error).__name__}); "
                "start one with ray start --head, and the other nodes with ray start --address"
            ) from error

    def __call__(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        """Read one job on any node."""
        with self._lock:
            self._reading += 1
        try:
            return self._once(job, card, progress)
        finally:
            with self._lock:
                self._reading -= 1
                self._left.notify_all()

    def _once(self, job: Job, card: Card, progress: Progress) -> Sequence[Result]:
        try:
            reader = self._take(progress)
        except RayError as error:
            raise Stumbled(f"the cluster gave no reader: {type(error).__name__}") from error
        try:
            answer = reader.read.remote(job, card)
            self._await(reader, answer, progress)
            results, events = ray.get(answer)
        except RayTaskError as error:
            # The reading has failed over there, and its reader is well; what it raised is in it.
            self._give_back(reader)
            if isinstance(error.cause, OverreadError):
                raise error.cause from None
            raise Stumbled(f"{type(error.cause).__name__} in this attempt") from None
        except RayActorError as error:
            raise WorkerLost("the node that read it, or its reader there, was lost", "crash", Death("crash")) from error
        except RayError as error:
            raise Stumbled(f"the cluster failed: {type(error).__name__}") from error
        self._give_back(reader)
        for event in events:
            self._herald(event)
        done: Sequence[Result] = results
        return done

    def warm(self, cards: Sequence[Card], count: int) -> None:
        """Start as many readers as there are places, and wait for them; which models they load, their jobs say."""
        del cards
        with suppress(Canceled), ThreadPoolExecutor(count) as starting:
            for reader in starting.map(lambda _: self._take(lambda _: None), range(count)):
                self._give_back(reader)

    def crowded(self) -> Collection[str]:
        """Nobody here knows the room of a node: there, readings wait for it."""
        return ()

    def standing(self) -> Sequence[Warm]:
        """What is loaded is loaded on the nodes."""
        return ()

    def close(self) -> None:
        """End all readers and leave the cluster."""
        with self._lock:
            self._closed = True
            # Leaving ends whatever thread is in a call of Ray's; those that are notice first.
            self._left.wait_for(lambda: not self._reading, POLITE_S)
        ray.shutdown()

    def _await(self, reader: Any, answer: Any, progress: Progress) -> None:
        asked, fraction = None, 0.0
        while not ray.wait([answer], timeout=LOOK_S)[0]:
            if asked is None:
                asked = reader.standing.remote()
            elif ray.wait([asked], timeout=0)[0]:
                fraction, asked = ray.get(asked), None
            try:
                if self._closed:
                    raise Canceled("the service is stopped")
                progress(fraction)
            except Canceled:
                reader.stop.remote()
                if ray.wait([answer], timeout=POLITE_S)[0]:
                    self._give_back(reader)
                else:
                    ray.kill(reader)
                raise

    def _take(self, progress: Progress) -> Any:
        """A reader that is up: one that is idle, or a new one as soon as the cluster has a place for it."""
        while (idle := self._pop()) is not None:
            if _is_up(idle):
                return idle
        fresh = ray.remote(Reader).options(scheduling_strategy="SPREAD", **self._options).remote(self._settings)
        asked = fresh.standing.remote()
        try:
            while not ray.wait([asked], timeout=LOOK_S)[0]:
                # A node less, and there may never be a place; then it is the turn of who is idle by now.
                if (idle := self._pop()) is not None and _is_up(idle):
                    ray.kill(fresh)
                    return idle
                progress(0.0)
            ray.get(asked)
        except BaseException:
            ray.kill(fresh)
            raise
        return fresh

    def _pop(self) -> Any:
        with self._lock:
            if self._closed:
                raise Canceled("the service is stopped")
            return self._idle.pop() if self._idle else None

    def _give_back(self, reader: Any) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(reader)


def _is_up(reader: Any) -> bool:
    """Whether a reader answers; its node may be gone."""
    try:
        ray.get(reader.standing.remote(), timeout=ANSWER_S)
    except RayError:
        return False
    return True
