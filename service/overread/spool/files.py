"""Writing so that it survives a power cut: temporary name, sync, rename, sync of the directory.

    incoming/                       half-written files, cleared at start
    instances/<2 hex>/<study>/      <instance>-<digest>.dcm, Part 10, data set byte for byte as it came
    results/<job>/                  what overread made
    quarantine/                     what could not be read, and why

Nothing that came from the wire becomes a path: names are hashes of UIDs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from overread.spool.durable import sync_folder, write_all

IMPLEMENTATION_CLASS_UID = UID("2.25.260317914783402561928736451928374650193")
IMPLEMENTATION_VERSION = "OVERREAD_0_1"
MOST_ANCHORED = 10_000


@dataclass(frozen=True)
class Stored:
    """Where bytes lie: ``path`` relative to the spool, ``digest`` the SHA-256 of the data set, ``size_bytes`` of it."""

    path: str
    digest: str
    size_bytes: int


class Spool:
    """The folder that holds all bytes. Safe to use from many threads."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self._anchored: set[Path] = set()
        for name in ("incoming", "instances", "results", "quarantine"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._sync_folders(root, root.parent)

    def clear_incoming(self) -> int:
        """Remove what was half-written when the service last ended; it was never acknowledged."""
        leftovers = list((self.root / "incoming").iterdir())
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def keep(self, study_uid: str, sop_instance_uid: str, meta: bytes, data: bytes | memoryview) -> Stored:
        """Store one instance: ``meta`` is preamble and file meta information, ``data`` the data set as it came.

        Returns when file and directory entry would survive a power cut. Identical content overwrites itself; other
        content under the same UID gets a file of its own. Raises OSError when the disk does not take it: no part of a
        file is left behind then, a whole one only when the sync of its folder failed.
        """
        digest = hashlib.sha256(data).hexdigest()
        folder = self.study_folder(study_uid)
        self._anchor(folder)
        target = folder / f"{_name(sop_instance_uid)}-{digest[:16]}.dcm"
        self._write(target, (meta, data))
        return Stored(str(target.relative_to(self.root)), digest, len(data))

    def keep_result(self, job_id: int, source: Path) -> Stored:
        """Make a finished result file durable under ``results/<job>/`` and say where it lies."""
        folder = self.root / "results" / str(job_id)
        self._anchor(folder)
        data = source.read_bytes()
        target = folder / source.name
        self._write(target, (data,), folder)
        return Stored(str(target.relative_to(self.root)), hashlib.sha256(data).hexdigest(), len(data))

    def clear_quarantine(self, before: float) -> None:
        """Remove what came into quarantine before a moment (seconds since the epoch)."""
        for path in (self.root / "quarantine").iterdir():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def quarantine(self, data: bytes | memoryview, reason: str) -> Path:
        """Keep bytes that cannot be read, with the reason beside them."""
        name = uuid.uuid4().hex
        target = self.root / "quarantine" / f"{name}.bin"
        self._write(target, (data,))
        (self.root / "quarantine" / f"{name}.txt").write_text(reason + "\n", "utf-8")
        return target

    def _anchor(self, folder: Path) -> None:
        # Made is not enough: whoever made the folder may not have synced its parents yet, or may have failed to.
        if folder in self._anchored and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._sync_folders(folder.parent, folder.parent.parent)
        if len(self._anchored) > MOST_ANCHORED:
            self._anchored.clear()
        self._anchored.add(folder)

    def _sync_folders(self, *folders: Path) -> None:
        for folder in folders if self._durable else ():
            sync_folder(folder)

    def _write(self, target: Path, parts: Sequence[bytes | memoryview], where: Path | None = None) -> None:
        # Results are begun beside their place: incoming/ is cleared when the listener starts, while others may write.
        temporary = (where or self.root / "incoming") / uuid.uuid4().hex
        try:
            with temporary.open("wb", buffering=0) as file:
                for part in parts:
                    write_all(file.fileno(), part)
                if self._durable:
                    os.fsync(file.fileno())
            temporary.replace(target)
            self._sync_folders(target.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def study_folder(self, study_uid: str) -> Path:
        """Where a study's instances lie."""
        name = _name(study_uid)
        return self.root / "instances" / name[:2] / name

    def absolute(self, path: str) -> Path:
        """The file behind a relative path of the ledger."""
        return self.root / path

    def instance_paths(self) -> Iterator[str]:
        """Relative paths of all stored instances."""
        for folder in sorted((self.root / "instances").glob("*/*")):
            for path in sorted(folder.glob("*.dcm")):
                yield str(path.relative_to(self.root))

    def remove_study(self, study_uid: str, job_ids: Sequence[int], paths: Collection[str], before: float) -> None:
        """Delete a study's instances, which are ``paths`` and what came before a time, and the results of its jobs."""
        folder = self.study_folder(study_uid)
        for path in folder.glob("*.dcm"):
            if str(path.relative_to(self.root)) in paths or path.stat().st_mtime < before:
                path.unlink()
        with contextlib.suppress(OSError):  # something has come meanwhile, or the folder is gone already
            folder.rmdir()
        for job_id in job_ids:
            shutil.rmtree(self.root / "results" / str(job_id), ignore_errors=True)

    def free_bytes(self) -> int:
        """Free space where the spool lies."""
        return shutil.disk_usage(self.root).free


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str) -> bytes:
    """Preamble and file meta information (PS3.10 Section 7.1) for an instance received from ``source_ae``."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    meta.SourceApplicationEntityTitle = source_ae
    buffer = BytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()


def dataset_digest(path: Path) -> str:
    """SHA-256 of the data set in a Part 10 file of the spool: everything after the file meta information."""
    with path.open("rb") as file:
        head = file.read(144)
        group_length = int.from_bytes(head[140:144], "little")
        file.seek(144 + group_length)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
