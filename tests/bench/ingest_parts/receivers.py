"""Who receives: how each is started on a free port with an empty folder, and where it keeps what it got."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ingest_parts import process_tree

START_S = 60.0
STOP_S = 15.0
LONGEST_WORDS = 120
PDU_BYTES = 131072
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"

Command = Callable[[Path, int, int], list[str]]


class ReceiverFailed(Exception):
    """It did not start; the message is its last word."""


@dataclass(frozen=True)
class Receiver:
    """``command`` makes what to run from (folder, port, associations).

    ``storage`` is where in the folder what it acknowledged lies; ``ledger`` the SQLite file that lists all of it.
    """

    key: str
    name: str
    ae_title: str
    command: Command
    program: str = ""
    storage: str = ""
    ledger: str = ""

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        if self.program and shutil.which(self.program, path=SEARCH_PATH) is None:
            return f"{self.program} is not installed"
        return ""


@dataclass(frozen=True)
class Running:
    """A receiver that listens."""

    receiver: Receiver
    folder: Path
    pid: int
    port: int

    def indexed(self) -> int | None:
        """How many instances its ledger lists; None where there is none."""
        if not self.receiver.ledger:
            return None
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True)) as ledger:
            return int(ledger.execute("select count(*) from instance").fetchone()[0])
        return 0

    @property
    def _ledger(self) -> Path:
        return self.folder / self.receiver.ledger


@contextmanager
def started(receiver: Receiver, folder: Path, associations: int) -> Iterator[Running]:
    """Run a receiver until the block ends, from when it listens and has come to rest. Raises ReceiverFailed."""
    folder.mkdir(parents=True)
    port = free_port()
    command = receiver.command(folder, port, associations)
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**os.environ, "TCP_NODELAY": "1"},  # Without it DCMTK, so Orthanc too, makes each answer wait 40 ms.
            start_new_session=True,
        )
    try:
        _wait_until_listening(process, port, folder / "said.txt")
        process_tree.wait_still(process.pid, START_S)
        yield Running(receiver, folder, process.pid, port)
    finally:
        _end(process)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + START_S
    while not process_tree.listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ReceiverFailed(_last_words(said) or f"it did not listen (exit code {process.poll()})")
        time.sleep(0.05)


def _last_words(said: Path) -> str:
    lines = said.read_text("utf-8", "replace").strip().splitlines() or [""]
    with suppress(ValueError, KeyError, TypeError):  # of lines that are not a log in JSON
        entry = json.loads(lines[-1])
        lines.append(f"{entry['message']}: {entry.get('exception', '')}")
    return lines[-1][:LONGEST_WORDS]


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:  # also when the bench is told to stop while it waits
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _overread(**receive: object) -> Command:
    def command(folder: Path, port: int, _associations: int) -> list[str]:
        settings = folder / "overread.toml"
        keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"port": port, **receive}.items())
        settings.write_text(f'data = "data"\n[receive]\n{keys}[observe]\nlisten_port = {free_port()}\n', "utf-8")
        return [sys.executable, "-m", "overread", "--config", str(settings), "run", "--role", "listen"]

    return command


def _stock_pynetdicom(folder: Path, port: int, _associations: int) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("stock_pynetdicom.py")), str(port), str(folder)]


def _orthanc(folder: Path, port: int, _associations: int) -> list[str]:
    program = shutil.which("Orthanc", path=SEARCH_PATH)
    assert program is not None
    # A copy, so that a service script which stops Orthanc everywhere does not stop this one.
    copy = shutil.copy(program, folder / "orthanc-bench")
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "MaximumPduLength": PDU_BYTES,
        "StorageCompression": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), "utf-8")
    return [str(copy), str(folder / "orthanc.json")]


def _storescp(folder: Path, port: int, associations: int) -> list[str]:
    fork = ["--fork"] if associations > 1 else []
    return ["storescp", "-q", *fork, "+B", "+xa", "-pdu", str(PDU_BYTES), "-od", str(folder), str(port)]


OVERREAD_KEEPS = {"storage": "data/spool/instances", "ledger": "data/ledger.sqlite"}
RECEIVERS = (
    Receiver("overread", "overread", "OVERREAD", _overread(), **OVERREAD_KEEPS),
    Receiver(
        "not-durable",
        "overread, durability off",
        "OVERREAD",
        _overread(durability="none"),
        **OVERREAD_KEEPS,
    ),
    Receiver(
        "stock-layer",
        "overread, stock upper layer",
        "OVERREAD",
        _overread(layers=False),
        **OVERREAD_KEEPS,
    ),
    Receiver("pynetdicom", "stock pynetdicom", "STOCK", _stock_pynetdicom),
    Receiver("orthanc", "Orthanc", "ORTHANC", _orthanc, program="Orthanc"),
    Receiver("storescp", "storescp +B", "STORESCP", _storescp, program="storescp"),
)
