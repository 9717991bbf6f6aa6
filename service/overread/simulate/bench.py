"""The simulated hospital for the command line and the demonstration."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.errors import ConfigError
from overread.domain.peer import Peer
from overread.simulate.phantom import ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study

if TYPE_CHECKING:
    from overread.simulate.pacs import Pacs

DEMO_GRID = Grid((88, 256, 256), (3.0, 1.5, 1.5))


def demo_phantom(seed: int) -> ChestPhantom:
    """The chest CT of the demonstration: 88 slices of 256 × 256, three nodules of 10 to 25 mm, a quiet scanner."""
    return chest_phantom(seed, DEMO_GRID, nodules=3, nodule_diameters_mm=(10.0, 25.0), noise_hu=18.0, healthy=True)


def write_phantom(folder: Path, seed: int, uid_salt: str = "") -> list[Path]:
    """Write the demonstration's study with a localizer and its truth; returns the DICOM files."""
    return write_study(demo_phantom(seed), folder, seed=seed, uid_salt=uid_salt, localizer=True, truth=True)


def peer_of(text: str) -> Peer:
    """``AE@HOST:PORT`` as a peer; raises ConfigError for anything else."""
    title, _, address = text.partition("@")
    host, _, port = address.rpartition(":")
    if not title or not host or not port.isdigit():
        raise ConfigError(f"{text!r} is no AE@HOST:PORT, such as OVERREAD@127.0.0.1:11112")
    return Peer(title, host, int(port))


def dicom_files(folder: Path) -> list[Path]:
    """Files below ``folder`` that have DICOM's preamble; raises ConfigError when there are none or no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_dicom(path)]
    if not files:
        raise ConfigError(f"{folder} has no DICOM files (Part 10, with a preamble)")
    return files


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def scan(folder: Path | None, seed: int, to: str, ae_title: str) -> int:
    """Send a folder, or a generated study, and say how it went; returns an exit code."""
    from overread.simulate.scanner import send

    peer = peer_of(to)
    with tempfile.TemporaryDirectory(prefix="overread-scan-") as temporary:
        files: Sequence[Path] = dicom_files(folder) if folder else write_phantom(Path(temporary), seed)
        sent = send(files, peer, calling_ae=ae_title)
    for failed in sent.failed[:5]:
        sys.stdout.write(f"not taken: {failed.path.name}: {failed.reason}\n")
    sys.stdout.write(f"{sent.stored} of {len(files)} stored in {sent.seconds:.1f} s, {len(sent.failed)} not taken\n")
    return 1 if sent.failed else 0


def serve_pacs(pacs: Pacs, web_port: int) -> int:
    """Run the simulated PACS, its DICOMweb services and its switchboard until SIGTERM or SIGINT."""
    from overread.simulate.web import Web

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with pacs, Web(pacs, pacs.host, web_port) as web:
        where = f"{pacs.ae_title} listens on {pacs.host} port {pacs.port}"
        sys.stdout.write(f"{where} and keeps objects in {pacs.folder}; DICOMweb at {web.url}\n")
        sys.stdout.write(f"what goes wrong: http://{web.host}:{web.port}/faults (GET, POST, DELETE)\n")
        sys.stdout.flush()
        stopping.wait()
    return 0
