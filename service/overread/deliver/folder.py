"""A folder as a destination, such as a share that another system reads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread

from overread.deliver.choice import chosen
from overread.domain.delivery import Item, Outcome, Proven, Standing, Told
from overread.domain.errors import NoConnection, Rejected, Unreachable
from overread.domain.result import Result
from overread.spool.durable import sync_folder

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_CHUNK_BYTES = 1 << 20


class FolderDestination:
    """Writes ``folder/<Study Instance UID>/<SOP Instance UID>.dcm``. The folder itself must exist: an unmounted share
    is to be noticed, not written beneath."""

    def __init__(self, name: str, folder: Path | str, *, variants: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = Path(folder)
        self._variants = tuple(variants)

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        """Copy the files, each complete, synced and under its final name or not there at all.

        A file that is not what its digest says is refused. Raises Unreachable when the folder cannot be written.
        """
        go, passed = chosen(items, self._variants, lambda _: True)
        yield from ((item, Told(Outcome.PASSED_OVER, "it got another variant of this")) for item in passed)
        for item in go:
            try:
                self._keep(item.result, item.path)
            except Rejected as error:
                yield item, Told(Outcome.REFUSED, str(error))
            else:
                yield item, Told(Outcome.TAKEN)

    def _keep(self, result: Result, source: Path) -> None:
        target = self._target(result)
        self._require_folder()
        with self._reachable():
            target.parent.mkdir(exist_ok=True)
            self._write(result, source, target)
            for folder in (target.parent, self.folder):
                sync_folder(folder)

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """Whether each file is there with the digest of its result. Raises Unreachable."""
        self._require_folder()
        yield from ((item, self._standing(item.result)) for item in items)

    def give_back(self, items: Sequence[Item]) -> Iterator[tuple[Item, Dataset | None]]:
        """Each object as it lies there; None for what does not. Raises Unreachable."""
        for item in items:
            target = self._target(item.result)
            with self._reachable():
                yield item, dcmread(target) if target.is_file() else None

    def check(self) -> str:
        """Write and remove a file; one line when it works, Unreachable with the reason and the remedy otherwise."""
        self._require_folder()
        with self._reachable():
            probe = self.folder / f".overread-{secrets.token_hex(4)}"
            probe.touch(exist_ok=False)
            probe.unlink()
        return f"{self.name}: {self.folder} can be written"

    def _target(self, result: Result) -> Path:
        for uid in (result.study_uid, result.sop_instance_uid):
            if len(uid) > 64 or not _UID.fullmatch(uid):
                raise Rejected("a result has a UID that is no UID (PS3.5 Section 9.1) and cannot name a file")
        return self.folder / result.study_uid / f"{result.sop_instance_uid}.dcm"

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise NoConnection(f"destination {self.name!r}: {self.folder} is not there; mount or create it")

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unreachable(f"destination {self.name!r}: {self.folder} cannot be used: {reason}") from None

    def _write(self, result: Result, source: Path, target: Path) -> None:
        part = target.parent / f".{result.sop_instance_uid}.{secrets.token_hex(4)}.part"
        try:
            with part.open("xb") as out:
                if _copy(source, out) != result.digest:
                    raise Rejected(f"the file of {result.sop_instance_uid} differs from its digest; run the job again")
                out.flush()
                os.fsync(out.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _standing(self, result: Result) -> Proven:
        target = self._target(result)
        with self._reachable():
            if not target.is_file():
                return Proven(Standing.MISSING, "it was written but is not there any more")
            with target.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == result.digest:
                    return Proven(Standing.THERE)
        return Proven(Standing.ALTERED, "the file that is there differs from what was written")


def _copy(source: Path, out: BinaryIO) -> str:
    """Copy a file; returns the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    try:
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
    except FileNotFoundError:
        raise Rejected("the file of a result is gone from the spool; run the job again") from None
    return digest.hexdigest()
