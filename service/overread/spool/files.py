"""Writing so that it survives a power cut: temporary name, sync, rename, sync of the directory.

    incoming/                       half-written files, cleared at start
    instances/<2 hex>/<study>/      <instance>-<digest>.dcm, Part 10, data set byte for byte as it came
    results/<job>/                  what overread made, and as .refused what it will not send
    quarantine/                     what could not be read, and why

Nothing that came from the wire becomes a path: names are hashes of UIDs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import xxhash

from overread.domain.study import Instance
from overread.spool.draft import Draft
from overread.spool.durable import sync_folder

MOST_ANCHORED = 10_000
PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Stored:
    """Where bytes lie: ``path`` relative to the spool; ``digest`` (XXH3-128) and ``size_bytes`` of the data set."""

    path: str
    digest: str
    size_bytes: int


class Spool:
    """The folder that holds all bytes. Safe to use from many threads."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self._anchored: set[str] = set()
        self._incoming = str(root / "incoming")
        for name in ("incoming", "instances", "results", "quarantine"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._sync_folders(root, root.parent)

    def clear_incoming(self) -> int:
        """Remove what was half-written when the service last ended; it was never acknowledged."""
        leftovers = list((self.root / "incoming").iterdir())
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    @property
    def scratch(self) -> Path:
        """Where passing files belong: on the spool's own disk, cleared at start."""
        return self.root / "incoming"

    def begin(self, meta: bytes) -> Draft:
        """A file to write one instance to, piece by piece; ``meta`` is preamble and file meta information.

        Raises OSError. Whoever begins a draft ends it: by ``keep_draft``, ``discard``, or into quarantine.
        """
        return Draft(self._incoming, meta, durable=self._durable)

    def keep_draft(self, draft: Draft, study_uid: str, sop_instance_uid: str) -> Stored:
        """Give a finished draft its place; returns when file and directory entry would survive a power cut.

        The same content again leaves the file that is there, with the time of its new coming; other content under the
        same UID gets a file of its own. Raises OSError when the disk does not take it: no part of a file is left behind
        then, a whole one only when the sync of its folder failed.
        """
        digest = draft.digest
        place = f"{_study_place(study_uid)}/{_name(sop_instance_uid)}-{digest[:16]}.dcm"
        target = f"{self.root}/{place}"
        folder = os.path.dirname(target)  # noqa: PTH120 — once for each instance: strings are ten times as fast
        try:
            self._anchor(folder)
            if os.access(target, os.F_OK) and _holds(target, draft):
                os.utime(target)
                draft.discard()
            else:
                draft.seal()
                draft.move(target)
            self._sync_folders(folder)
        except OSError:
            draft.discard()
            raise
        return Stored(place, digest, draft.size_bytes)

    def keep(self, study_uid: str, sop_instance_uid: str, meta: bytes, data: bytes | memoryview) -> Stored:
        """Store one instance that is at hand as a whole; ``data`` is the data set as it came. As ``keep_draft``."""
        draft = self.begin(meta)
        try:
            draft.write(data)
        except OSError:
            draft.discard()
            raise
        return self.keep_draft(draft, study_uid, sop_instance_uid)

    def adopt(self, file: Path, instance: Instance) -> Stored:
        """Store a copy of a Part 10 file, such as one released from quarantine. Raises OSError."""
        with file.open("rb") as source:
            draft = self.begin(source.read(dataset_start(source)))
            try:
                while piece := source.read(PIECE_BYTES):
                    draft.write(piece)
            except OSError:
                draft.discard()
                raise
        return self.keep_draft(draft, instance.study_uid, instance.sop_instance_uid)

    def keep_result(self, job_id: int, source: Path) -> Stored:
        """Make a finished result file durable under ``results/<job>/`` and say where it lies."""
        place = f"results/{job_id}"
        folder = f"{self.root}/{place}"
        self._anchor(folder)
        # Begun beside its place: incoming/ is cleared when the listener starts, while others may write.
        draft = Draft(folder, b"", durable=self._durable)
        try:
            draft.write(source.read_bytes())
            draft.seal()
            draft.move(f"{folder}/{source.name}")
            self._sync_folders(folder)
        except OSError:
            draft.discard()
            raise
        return Stored(f"{place}/{source.name}", draft.digest, draft.size_bytes)

    def _anchor(self, folder: str) -> None:
        # Made is not enough: whoever made the folder may not have synced its parents yet, or may have failed to.
        if folder in self._anchored and os.access(folder, os.F_OK):
            return
        made = Path(folder)
        made.mkdir(parents=True, exist_ok=True)
        self._sync_folders(made.parent, made.parent.parent)
        if len(self._anchored) > MOST_ANCHORED:
            self._anchored.clear()
        self._anchored.add(folder)

    def _sync_folders(self, *folders: str | Path) -> None:
        for folder in folders if self._durable else ():
            sync_folder(folder)

    def study_folder(self, study_uid: str) -> Path:
        """Where a study's instances lie."""
        return self.root / _study_place(study_uid)

    def absolute(self, path: str) -> Path:
        """The file behind a relative path of the ledger."""
        return self.root / path

    def instance_paths(self) -> Iterator[str]:
        """Relative paths of all stored instances."""
        for folder in sorted((self.root / "instances").glob("*/*")):
            for path in sorted(folder.glob("*.dcm")):
                yield str(path.relative_to(self.root))

    def came_lately(self, uids: Collection[str], since: float) -> set[str]:
        """Which SOP Instance UIDs have a file in a study's folder that has changed since a time."""
        wanted = {_name(uid): uid for uid in uids}
        found: set[str] = set()
        for folder in (self.root / "instances").glob("*/*"):
            with contextlib.suppress(OSError):  # a folder that retention removes
                if folder.stat().st_mtime >= since:
                    names = (file.name.partition("-")[0] for file in folder.iterdir())
                    found.update(wanted[name] for name in names if name in wanted)
        return found

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


def dataset_digest(path: Path) -> str:
    """XXH3-128 of the data set in a Part 10 file of the spool: everything after the file meta information."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        file.seek(dataset_start(file))
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def dataset_start(file: BinaryIO) -> int:
    """Where the data set begins in a Part 10 file (PS3.10 Section 7.1); leaves the file at its start."""
    head = file.read(144)
    file.seek(0)
    return 144 + int.from_bytes(head[140:144], "little")


def _holds(target: str, draft: Draft) -> bool:
    # The digest in the name is half of a digest that an attacker could collide: only equal bytes are the same content.
    # What is there under this name with other bytes is damaged, and makes way.
    with Path(target).open("rb") as file:
        start = dataset_start(file)
        if os.fstat(file.fileno()).st_size - start != draft.size_bytes:
            return False
        file.seek(start)
        pieces = range(0, draft.size_bytes, PIECE_BYTES)
        return all(file.read(PIECE_BYTES) == draft.read_at(offset, PIECE_BYTES) for offset in pieces)


@lru_cache(maxsize=256)
def _study_place(study_uid: str) -> str:
    name = _name(study_uid)
    return f"instances/{name[:2]}/{name}"


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
