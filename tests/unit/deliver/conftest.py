"""Results as files, and peers on loopback that answer as they are told."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)
from pynetdicom import AE

from overread.domain.peer import Peer
from overread.domain.result import Result

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "journey")]

Made = tuple[Result, Path]
BOTH = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


@pytest.fixture
def make_result(tmp_path: Path) -> Callable[..., Made]:
    """Make one result: ``number`` its UID, ``sop_class``, ``syntax``, and ``pad`` bytes of pixel data."""

    def make(
        number: int = 1,
        *,
        sop_class: str = SegmentationStorage,
        syntax: str = ExplicitVRLittleEndian,
        pad: int = 64,
        study: str = "1.2.826.0.1.1",
        alternative: str = "",
        variant: str = "",
    ) -> Made:
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"1.2.826.0.1.3.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, "1.2.826.0.1.2"
        dataset.PatientName, dataset.PatientID, dataset.Modality = "SECRET^NAME", "SECRET-ID", "SEG"
        dataset.Rows, dataset.Columns, dataset.BitsAllocated = 8, 8, 8
        dataset.PixelData = bytes(range(256)) * (pad // 256) + bytes(pad % 256)
        dataset["PixelData"].VR = "OB"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        dataset.file_meta = meta
        path = tmp_path / f"result-{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        uids = (dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID)
        made = Result("seg", str(sop_class), *map(str, uids), str(syntax), path.name, digest, alternative, variant)
        return made, path

    return make


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    """An SCP on a free port: ``handlers`` as pynetdicom takes them, ``contexts`` SOP class to transfer syntaxes."""
    entities: list[Any] = []

    def start(
        handlers: list[Any],
        contexts: dict[str, tuple[str, ...]] | None = None,
        ae_title: str = "PEER",
        ssl_context: Any = None,
        roles: tuple[str, ...] = (),
        **options: Any,
    ) -> Peer:
        entity = AE(ae_title=ae_title)
        for sop_class, syntaxes in (contexts or {str(SegmentationStorage): BOTH}).items():
            both = sop_class in roles or None
            entity.add_supported_context(sop_class, list(syntaxes), scu_role=both, scp_role=both)
        for name, value in options.items():
            setattr(entity, name, value)
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=ssl_context)
        entities.append(entity)
        return Peer(ae_title, "127.0.0.1", server.server_address[1])

    yield start
    for entity in entities:
        entity.shutdown()


@pytest.fixture
def silent() -> Iterator[Peer]:
    """A peer that accepts connections, reads nothing and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    yield Peer("SILENT", "127.0.0.1", listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in held:
        connection.close()


@pytest.fixture
def closed_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Certificates, see ``secured``."""
    from secured import make_papers

    return make_papers(tmp_path_factory.mktemp("papers"))
