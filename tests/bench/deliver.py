"""How fast do results go out? overread's outbox beside DCMTK's storescu: the same objects, the same receivers, one run.

    python tests/bench/deliver.py --rounds 5 --json figures.json

Each round sends all objects with each sender in turn, to each receiver in turn; the median of the rounds is shown. What
is measured of overread is the outbox as the service runs it: claims and marks in a durable ledger, one association, no
proof (a receiver's answers to C-FIND would be measured otherwise); of storescu, the process with TCP_NODELAY=1 and
without, for it leaves the algorithm of Nagle on. The exit code is 0 when everything arrived and the ratio is at least
--least.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "journey"))

from outgoing import fill

from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.outbox import Outbox
from overread.deliver.patience import Patience
from overread.deliver.proofs import unasked
from overread.deliver.round import Terms
from overread.domain.peer import Peer
from overread.domain.result import Result
from overread.ledger import open_ledger, views

KILO, OBJECTS = 1000, 200
SENDERS = ("overread", "storescu", "storescu with Nagle")


@dataclass(frozen=True)
class Load:
    """The objects, in the folder ``results`` of a spool."""

    data: Path
    results: tuple[Result, ...]
    size_bytes: int


def main() -> int:
    """Measure, print, and say by the exit code whether it is fast enough."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="overread-deliver-", dir=options.folder) as made:
        folder = Path(made)
        seconds: dict[tuple[str, str], list[float]] = {}
        arrived = True
        for round_ in range(options.rounds):
            for receiver in options.receivers:
                for sender in _in_turn(options.senders, round_):
                    place = folder / f"{round_}-{receiver}-{options.senders.index(sender)}"
                    took, count = _measured(place, receiver, sender, options)
                    arrived &= count in (None, options.objects)
                    seconds.setdefault((receiver, sender), []).append(took)
                    shutil.rmtree(place)
        return _say(options, seconds, arrived=arrived)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=OBJECTS, help="of 100 kB to 1 MB each (default: %(default)s)")
    parser.add_argument("--receivers", nargs="+", choices=list(RECEIVERS), default=list(RECEIVERS))
    parser.add_argument("--senders", nargs="+", choices=SENDERS, default=list(SENDERS))
    parser.add_argument("--least", type=float, default=0.9, help="ratio to storescu that is enough")
    parser.add_argument("--folder", type=Path, help="where to work (default: where temporary files lie)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def _in_turn(senders: Sequence[str], round_: int) -> list[str]:
    return [*senders[round_ % len(senders) :], *senders[: round_ % len(senders)]]


def _measured(place: Path, receiver: str, sender: str, options: argparse.Namespace) -> tuple[float, int | None]:
    place.mkdir(parents=True)
    load = make_load(place, options.objects)
    with RECEIVERS[receiver](place) as (peer, count):
        sending = _outbox(load, peer) if sender == "overread" else _storescu(load, peer, nagle="Nagle" in sender)
        with sending as go:
            os.sync()  # what earlier runs have left to be written is not this one's
            started = time.perf_counter()
            go()
            took = time.perf_counter() - started
        return took, count()


def make_load(place: Path, objects: int) -> Load:
    """So many SEG and SR of 100 kB to 1 MB, ten of a job, in a ledger and a spool; the same at each call."""
    rng = random.Random(7)
    results = fill(place, objects // 10, 10, {"there": ("seg", "sr")}, pad=0)
    for number, result in enumerate(results):
        path = place / "spool" / result.path
        _pad(path, rng.randrange(100 * KILO, KILO * KILO), number)
    size = sum((place / "spool" / r.path).stat().st_size for r in results)
    return Load(place, tuple(results), size)


def _pad(path: Path, size: int, number: int) -> None:
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.PixelData = random.Random(number).randbytes(size // 2 * 2)
    dataset.save_as(path, enforce_file_format=True)


@contextmanager
def _outbox(load: Load, peer: Peer) -> Iterator[Callable[[], object]]:
    """One thread of the outbox, in a service that runs already."""
    ledger = open_ledger(f"sqlite:///{load.data / 'ledger.sqlite'}")
    there = DimseDestination("there", Calling(peer, "OVERREAD", timeout_s=30.0), witness=unasked)
    terms = Terms(Patience(5.0, 900.0, 1e6), "bench")
    box = Outbox(ledger, there, terms, (load.data / "spool").joinpath, lambda _: None)

    def go() -> None:
        while box.work():
            continue

    yield go
    states = views.backlog(ledger, 0.0).deliveries
    there.close()
    ledger.close()
    if set(states) != {("there", "ACCEPTED")}:
        raise SystemExit(f"the outbox ended with {states}")


@contextmanager
def _storescu(load: Load, peer: Peer, *, nagle: bool) -> Iterator[Callable[[], object]]:
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"} | ({} if nagle else {"TCP_NODELAY": "1"})
    command = [dcmtk("storescu"), "-R", "-xe", "-aet", "OVERREAD", "-aec", peer.ae_title, peer.host, str(peer.port)]
    command += ["+sd", "+r", str(load.data / "spool" / "results")]
    yield lambda: subprocess.run(command, check=True, env=environment)


def dcmtk(tool: str) -> str:
    """The path of a DCMTK tool; pynetdicom installs others under the same names."""
    for folder in os.get_exec_path():
        found = shutil.which(tool, path=folder)
        if found and b"dcmtk" in subprocess.run([found, "--version"], capture_output=True, check=False).stdout.lower():
            return found
    raise SystemExit(f"DCMTK's {tool} is not installed (Debian: dcmtk)")


@contextmanager
def storescp(place: Path) -> Iterator[tuple[Peer, Callable[[], int | None]]]:
    """DCMTK's storescp with large PDUs, which writes files."""
    port, folder = _free_port(), place / "storescp"
    folder.mkdir()
    command = [dcmtk("storescp"), "+B", "+xa", "-pdu", "131072", "-od", str(folder), "-aet", "THERE", str(port)]
    with _running(command, port, {**os.environ, "TCP_NODELAY": "1"}):
        yield Peer("THERE", "127.0.0.1", port), lambda: sum(1 for _ in folder.iterdir())


@contextmanager
def ignoring(_: Path) -> Iterator[tuple[Peer, Callable[[], int | None]]]:
    """DCMTK's storescp that drops what it takes: the sender's own speed, as near as it can be seen."""
    port = _free_port()
    command = [dcmtk("storescp"), "--ignore", "+xa", "-pdu", "131072", "-aet", "THERE", str(port)]
    with _running(command, port, {**os.environ, "TCP_NODELAY": "1"}):
        yield Peer("THERE", "127.0.0.1", port), lambda: None


@contextmanager
def orthanc(place: Path) -> Iterator[tuple[Peer, Callable[[], int | None]]]:
    """Debian's Orthanc, from a copy of the program."""
    found = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        raise SystemExit("Orthanc is not installed (Debian: orthanc)")
    port, web = _free_port(), _free_port()
    binary, config = shutil.copy(found, place / "orthanc-copy"), place / "orthanc.json"
    settings = {"StorageDirectory": str(place / "db"), "IndexDirectory": str(place / "db"), "HttpPort": web}
    settings |= {"DicomPort": port, "DicomAet": "THERE", "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False}
    config.write_text(json.dumps(settings), "utf-8")
    with _running([binary, str(config)], port, {**os.environ, "TCP_NODELAY": "1"}):
        yield Peer("THERE", "127.0.0.1", port), lambda: sum(1 for p in (place / "db").glob("*/*/*") if p.is_file())


RECEIVERS = {"storescp": storescp, "storescp --ignore": ignoring, "Orthanc": orthanc}


@contextmanager
def _running(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment, cwd="/")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _ratios(receiver: str, seconds: dict[tuple[str, str], list[float]]) -> list[float]:
    """overread's rate by storescu's in each round: whatever else the machine did, it did to both."""
    ours, theirs = seconds.get((receiver, "overread"), []), seconds.get((receiver, "storescu"), [])
    return [their / our for our, their in zip(ours, theirs, strict=False)]


def _say(options: argparse.Namespace, seconds: dict[tuple[str, str], list[float]], *, arrived: bool) -> int:
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    figures = []
    print(f"\n{options.objects} SEG and SR of 100 kB to 1 MB, median of {options.rounds} rounds; objects a second\n")
    print(f"{'receiver':<20}" + "".join(f"{sender:>22}" for sender in options.senders) + f"{'ratio':>9}")
    fast = True
    for receiver in options.receivers:
        rates = {sender: options.objects / medians[receiver, sender] for sender in options.senders}
        ratios = _ratios(receiver, seconds)
        ratio = statistics.median(ratios) if ratios else None
        fast &= ratio is None or ratio >= options.least
        told = "".join(f"{rates[sender]:>22.0f}" for sender in options.senders)
        said = f"{ratio:>9.2f} [{min(ratios):.2f}–{max(ratios):.2f}]" if ratios else f"{'':>9}"
        print(f"{receiver:<20}{told}{said}")
        figures.append({"receiver": receiver, "objects_per_second": rates, "ratio": ratio, "ratios": ratios})
    print(f"\n{'everything arrived' if arrived else 'NOT EVERYTHING ARRIVED'}")
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "figures": figures}, indent=1), "utf-8")
    return 0 if fast and arrived else 1


if __name__ == "__main__":
    sys.exit(main())
