"""Who sends: DCMTK's storescu or our own blast, one process for each association."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen

BENCH = Path(__file__).resolve().parents[1]
PATIENCE_S = 600.0
NAGLE = "storescu, Nagle on"
Process = Popen[str]


@dataclass(frozen=True)
class Transfer:
    """What the senders saw: from the first byte of the first to the last answer of the last; ``trouble`` if any."""

    wall_s: float = 0.0
    latencies_s: tuple[float, ...] = ()
    trouble: str = ""


Send = Callable[[int, str, Sequence[Path]], Transfer]


def blast(port: int, called: str, shards: Sequence[Path]) -> Transfer:
    """Prepare all associations, then start them together."""
    return _together([sys.executable, "-m", "ingest_parts.blast", "127.0.0.1", str(port), called], shards)


def stow(each: int) -> Send:
    """STOW-RS with so many instances a request, the bodies prepared before the clock starts; ``called`` is a path."""

    def send(port: int, called: str, shards: Sequence[Path]) -> Transfer:
        module = "ingest_parts.stow_push"
        return _together([sys.executable, "-m", module, "127.0.0.1", str(port), called, str(each)], shards)

    return send


def _together(command: Sequence[str], shards: Sequence[Path]) -> Transfer:
    with _processes([[*command, str(shard)] for shard in shards], dict(os.environ)) as senders:
        ready = [_line(sender) == "ready\n" for sender in senders]
        for sender in senders if all(ready) else ():
            _tell(sender)
        lines = [_line(sender) if all(ready) else "" for sender in senders]
        if trouble := _trouble(senders, kill=not all(lines)):
            return Transfer(trouble=trouble)
    seen = [json.loads(line) for line in lines]
    refused = [status for one in seen for status in one["refused"]]
    return Transfer(
        max(one["end"] for one in seen) - min(one["start"] for one in seen),
        tuple(latency for one in seen for latency in one["latencies_s"]),
        f"{len(refused)} refused, the first with {refused[0]}" if refused else "",
    )


def storescu(port: int, called: str, shards: Sequence[Path]) -> Transfer:
    """DCMTK, its Nagle algorithm off; the time includes its start and its reading of the files."""
    return _storescu(port, called, shards, {**os.environ, "TCP_NODELAY": "1"})


def storescu_with_nagle(port: int, called: str, shards: Sequence[Path]) -> Transfer:
    """DCMTK as it comes: the Nagle algorithm on."""
    return _storescu(port, called, shards, {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"})


STOW = {each: f"STOW-RS, {each} a request" for each in (1, 10, 50)}
SENDERS: dict[str, Send] = {
    "blast": blast,
    "storescu": storescu,
    NAGLE: storescu_with_nagle,
    **{name: stow(each) for each, name in STOW.items()},
}


def missing(sender: str) -> str:
    """Why this sender cannot run; empty when it can."""
    return "" if not sender.startswith("storescu") or shutil.which("storescu") else "storescu is not installed"


def _storescu(port: int, called: str, shards: Sequence[Path], environment: dict[str, str]) -> Transfer:
    command = ["storescu", "-R", "-xe", "-aec", called, "+sd", "+r", "127.0.0.1", str(port)]
    start = time.monotonic()
    with _processes([[*command, str(shard)] for shard in shards], environment) as senders:
        for sender in senders:
            sender.wait(PATIENCE_S)
        wall_s = time.monotonic() - start
        return Transfer(wall_s, trouble=_trouble(senders))


@contextmanager
def _processes(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> Iterator[list[Process]]:
    started: list[Process] = []
    try:
        for command in commands:
            started.append(
                Process(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, cwd=BENCH, env=environment)
            )
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _line(sender: Process) -> str:
    assert sender.stdout is not None
    return sender.stdout.readline()


def _tell(sender: Process) -> None:
    assert sender.stdin is not None
    sender.stdin.write("go\n")
    sender.stdin.flush()


def _trouble(senders: Sequence[Process], *, kill: bool = False) -> str:
    """The last words of a sender that failed. ``kill``: one did not come as far as it should, so wait for none."""
    if kill:
        time.sleep(0.2)
    for sender in senders:
        if kill and sender.poll() is None:
            sender.kill()
        sender.wait(PATIENCE_S)
    failed = [sender for sender in senders if sender.returncode > 0] or [s for s in senders if s.returncode]
    if not failed:
        return ""
    assert failed[0].stderr is not None
    return (failed[0].stderr.read().strip().splitlines() or [f"exit code {failed[0].returncode}"])[-1]
