"""The house for tests from wire to wire: a running service, its processes, a tiny model, a small study, patience."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import torch
from pydicom import dcmread

from overread.deliver.association import association
from overread.deliver.association import echo as ask
from overread.domain.errors import Rejected, Unreachable
from overread.domain.lock import write_lock
from overread.domain.peer import Peer
from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.scanner import Patience, Sent, send
from overread.simulate.study import write_study

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("listen", "watch", "work")
BONE_HU, AIR_HU = 200.0, -500.0
SMALL = Grid((24, 32, 32), (5.0, 10.0, 10.0))
IMAGE = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
SEG, SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


def wait_for(predicate: Callable[[], Any], seconds: float, what: str | Callable[[], str] = "it") -> Any:
    """The first true answer of ``predicate``; fails, saying ``what``, when there is none within ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what if isinstance(what, str) else what()} did not happen within {seconds:g} s")
        time.sleep(0.1)


def _ports() -> Iterator[int]:
    """Ports that no outgoing connection takes by chance, in turn; another thousand for each process of a run."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + number % 10 * 1_000
    yield from itertools.islice(itertools.cycle(range(first, first + 1_000)), os.getpid() % 1_000, None)


_ports_in_turn = _ports()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses."""
    return list(itertools.islice(filter(_is_free, _ports_in_turn), count))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# --- settings --------------------------------------------------------------------------------------------------------


def toml(table: dict[str, Any], name: str = "") -> str:
    """A nested dict as TOML: strings, numbers, lists of those, tables and lists of tables."""
    lines, below = [], []
    for key, value in table.items():
        full = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            below.append(f"\n[{full}]\n{toml(value, full)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            below += [f"\n[[{full}]]\n{toml(item, full)}" for item in value]
        else:
            lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join(lines + below)


def destination(name: str, port: int, **more: Any) -> dict[str, Any]:
    """A DIMSE destination on loopback that is tried again soon."""
    to = {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "port": port, "timeout_s": 10.0}
    return to | {"first_retry_s": 0.5, "longest_retry_s": 2.0} | more


def write_settings(folder: Path, models: Path, deliver: Sequence[dict[str, Any]], **tables: dict[str, Any]) -> Path:
    """A settings file in ``folder`` with free ports, a quiet time of one second and short retries; ``tables`` add."""
    port, *observe = free_ports(4)
    loopback = "127.0.0.0/8"
    settings: dict[str, Any] = {
        "data": str(folder / "data"),
        "models": [str(models)],
        "receive": {"port": port, "min_free_mb": 10, "allow": [{"ae_title": "*", "network": loopback}]},
        "assemble": {"quiet_s": 1.0, "quiet_by_modality_s": {"CT": 1.0}},
        "schedule": {"cpu_threads": 1, "lease_s": 10.0, "retry_s": 0.5},
        "observe": dict(zip(("listen_port", "watch_port", "work_port"), observe, strict=True)),
        "deliver": [{"results": ["seg", "sr"], **to} for to in deliver],
    }
    for name, values in tables.items():
        settings[name] = settings.get(name, {}) | values
    path = folder / "overread.toml"
    path.write_text(toml(settings), "utf-8")
    return path


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """One line of /proc."""

    pid: int
    parent: int
    command: str


def processes() -> list[Process]:
    """All processes that run and are no zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state != "Z":
                found.append(Process(int(folder.name), int(parent), command))
    return found


def below(pid: int) -> list[Process]:
    """All that descend from a process."""
    everyone, family, found = processes(), {pid}, []
    for _ in range(5):
        found = [p for p in everyone if p.parent in family]
        family |= {p.pid for p in found}
    return found


def models_below(pid: int) -> list[int]:
    """The models' processes of a keeper, without their guards, of which each is the child and looks alike."""
    family = [p for p in below(pid) if "overread.infer.entry" in p.command]
    guards = {p.pid for p in family if p.parent == pid}
    return [p.pid for p in family if p.parent in guards]


def alive(pid: int) -> bool:
    """Whether a process runs."""
    return any(p.pid == pid for p in processes())


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def environment() -> dict[str, str]:
    """The environment of a process that finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "service"), "PYTHONUNBUFFERED": "1"}


@dataclass
class Service:
    """``overread run`` with a settings file, as a process of its own."""

    config: Path
    role: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        import tomllib

        values = tomllib.loads(self.config.read_text("utf-8"))
        self.data = Path(values["data"])
        self.port = int(values["receive"]["port"])
        self.web = {role: int(values["observe"][f"{role}_port"]) for role in ROLES}
        self.log = self.config.parent / "service.log"
        self.peer = Peer("OVERREAD", "127.0.0.1", self.port)

    # its life

    def start(self, *, wait: bool = True) -> Service:
        """Start it; ``wait`` until every role says that it is ready."""
        command = [sys.executable, "-m", "overread", "--config", str(self.config), "run"]
        command += ["--role", self.role] if self.role else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, cwd=self.config.parent)
        if wait:
            wait_for(self.is_ready, 90, lambda: f"being ready ({self.tail()})")
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether each role of this process answers /readyz with ok."""
        assert self._process is not None
        assert self._process.poll() is None, f"the service ended: {self.tail()}"
        return all(self.page(role, "readyz")[0] == 200 for role in ([self.role] if self.role else ROLES))

    def stop(self, seconds: float = 90.0) -> float:
        """SIGTERM; returns after how many seconds it had ended. It must end well, and leave nobody behind."""
        assert self._process is not None
        family, started = below(self.pid), time.monotonic()
        self._process.terminate()
        code = self._process.wait(seconds)
        took = time.monotonic() - started
        assert code == 0, f"exit code {code}: {self.tail()}"
        self.require_gone(family)
        return took

    def kill(self) -> None:
        """kill -9 of the process that keeps the others; all of them must go with it."""
        assert self._process is not None
        family = below(self.pid)
        self._process.kill()
        self._process.wait(30)
        self.require_gone(family)

    def end(self) -> None:
        """Whatever its state: make an end."""
        if self._process is not None and self._process.poll() is None:
            for process in (*below(self.pid), Process(self.pid, 0, "")):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._process.wait(30)

    @staticmethod
    def require_gone(family: Iterable[Process]) -> None:
        """Fails when one of the processes lives on; the helpers of Python's multiprocessing included."""
        family = list(family)

        def left() -> list[Process]:
            now = {p.pid: p for p in processes()}
            return [p for p in family if p.pid in now and now[p.pid].command == p.command]

        wait_for(lambda: not left(), 20, lambda: f"the end of {[(p.pid, p.command[:120]) for p in left()]}")

    # its parts

    def role_pid(self, role: str) -> int | None:
        """The process of a role; None while there is none."""
        return next((p.pid for p in below(self.pid) if p.parent == self.pid and f"--role {role}" in p.command), None)

    def model_pids(self) -> list[int]:
        """The processes of warm models."""
        return models_below(self.role_pid("work") or -1)

    # what it says

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def page(self, role: str, name: str) -> tuple[int, str]:
        """Status and text of /metrics, /livez or /readyz of a role; status 0 when nothing answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.web[role]}/{name}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another ``overread`` command on the same settings."""
        command = [sys.executable, "-m", "overread", "--config", str(self.config), *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the ledger's file, past the program."""
        path = self.data / "ledger.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def jobs(self, study_uid: str) -> list[tuple[int, str]]:
        """(number, state) of a study's jobs, oldest first."""
        return self.rows("SELECT id, state FROM job WHERE study_uid = ? ORDER BY id", study_uid)

    def states(self, study_uid: str) -> list[str]:
        """States of a study's jobs, oldest first."""
        return [state for _, state in self.jobs(study_uid)]

    def wait_states(self, study_uid: str, states: list[str], seconds: float = 120.0) -> None:
        """Wait for a study's jobs to be exactly in these states; fails at once when one has failed and should not."""

        def reached() -> bool:
            now = self.rows("SELECT state, reason FROM job WHERE study_uid = ? ORDER BY id", study_uid)
            failed = [why for state, why in now if state == "FAILED"]
            assert "FAILED" in states or not failed, failed
            return [state for state, _ in now] == states

        wait_for(reached, seconds, lambda: f"{states} (jobs are {self.jobs(study_uid)})\n{self.tail()}\n")


# --- studies and models ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """A generated CT as files."""

    uid: str
    files: tuple[Path, ...]

    @property
    def instance_uids(self) -> list[str]:
        return [str(dcmread(f, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for f in self.files]


def small_study(folder: Path, salt: str, seed: int = 1) -> Study:
    """24 slices of 32 × 32, in which the tiny model finds bone; ``salt`` makes it another study."""
    phantom = chest_phantom(seed, SMALL, nodules=0, noise_hu=10.0, healthy=True)
    files = write_study(phantom, folder / salt, seed=seed, uid_salt=salt)
    return Study(str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID), tuple(files))


def scan(
    service: Service, files: Iterable[Path], calling_ae: str = "SCANNER", tries: int = 5, timeout_s: float = 60.0
) -> Sent:
    """Send files as a scanner does."""
    return send(list(files), service.peer, calling_ae=calling_ae, patience=Patience(tries, timeout_s=timeout_s))


def echo(peer: Peer, calling_ae: str = "SCANNER", timeout_s: float = 10.0) -> bool:
    """Whether a C-ECHO is answered with success."""
    try:
        with association(peer, calling_ae, [(VERIFICATION, IMPLICIT)], timeout_s=timeout_s) as line:
            return ask(line) == 0
    except (Unreachable, Rejected):
        return False


CARD = """\
name = "tiny"
version = "1.0"
title = "A threshold"
manufacturer = "overread tests"
engine = "monai-bundle"
weights = "models/model.pt"
weights_sha256 = "{digest}"

[accepts]
modality = "CT"
min_slices = 5

[runtime]
timeout_s = 120
attempts = {attempts}

[[labels]]
value = 1
name = "Bone"
type = ["272673000", "SCT", "Bone"]
color = [244, 194, 13]
"""
AIR = """
[[labels]]
value = 2
name = "Air"
type = ["39607008", "SCT", "Lung"]
color = [72, 133, 237]
"""


def tiny_model(models: Path, *, attempts: int = 3, labels: int = 2, window: int = 8) -> Path:
    """Write a MONAI bundle that calls voxels above 200 HU bone and, when it has two labels, those below -500 HU air,
    window by window (smaller ones take longer); returns the folder of models."""
    folder = models / "tiny"
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": labels + 1, "kernel_size": 1}
    keys = {"keys": "image"}
    config = {
        "network_def": network,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **keys},
                {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "EnsureTyped", **keys},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [window] * 3, "sw_batch_size": 1, "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config), "utf-8")
    layer = torch.nn.Conv3d(1, labels + 1, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([0.0, 1.0, -1.0])[: labels + 1].reshape(-1, 1, 1, 1, 1)
        layer.bias[:] = torch.tensor([0.0, -BONE_HU, AIR_HU])[: labels + 1]
    weights = folder / "models" / "model.pt"
    torch.save(layer.state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "card.toml").write_text(CARD.format(digest=digest, attempts=attempts) + AIR * (labels > 1), "utf-8")
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
    return models


def dataset_bytes(path: Path) -> bytes:
    """What follows the file meta information in a Part 10 file."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]
