"""Quarantine: what came and could not be taken, byte for byte, with the facts that a person needs to judge it.

    <id>.json       why, when, from whom; written first
    <id>.dcm        Part 10, the data set byte for byte as it came; an entry exists when this file does

Nothing that came from the wire, and nothing from a command line, becomes a path: ids are random.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from overread.domain.errors import Refused
from overread.domain.study import Instance
from overread.spool.durable import sync_folder, write_durable
from overread.spool.header import read_file
from overread.spool.limits import LIMITS

LOST = "its facts are lost"
ID_BYTES = 6
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Facts:
    """What is known of an entry. ``at`` is when it came (seconds since the epoch), ``status`` what was answered.

    The UIDs are those of the command that brought it and may be empty; ``size_bytes`` is that of the data set.
    """

    at: float
    reason: str
    status: int
    calling_ae: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int


@dataclass(frozen=True)
class Entry:
    """One thing in quarantine: its id, its facts, and its Part 10 file."""

    id: str
    facts: Facts
    file: Path

    @property
    def facts_lost(self) -> bool:
        """Whether nothing but the file itself is left to tell what it is."""
        return self.facts.reason == LOST


def judge(entry: Entry) -> Instance:
    """Today's rules on an entry; raises Refused with the reason when it still cannot be taken."""
    if entry.facts_lost:
        raise Refused(f"{LOST}: nothing says what its sender took it for")
    try:
        instance = read_file(entry.file, limits=LIMITS)
    except OSError as error:
        raise Refused(f"its file cannot be read ({error.strerror})") from error
    if instance.sop_instance_uid != entry.facts.sop_instance_uid:
        raise Refused("the data set's SOPInstanceUID is not the one in the command")
    if instance.sop_class_uid != entry.facts.sop_class_uid:
        raise Refused("the data set's SOPClassUID is not the one in the command")
    return instance


class Quarantine:
    """The folder ``root``. Safe to use from many threads and processes; ``durable`` false never waits for the disk."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        root.mkdir(parents=True, exist_ok=True)

    def admit(self, file: Path, facts: Facts) -> str:
        """Move a synced file in; returns its id once both would survive a power cut.

        Raises OSError when the disk does not take it; nothing of it is in quarantine then.
        """
        name = secrets.token_hex(ID_BYTES)
        told, target = self._facts_file(name), self._file(name)
        try:
            self._write(json.dumps({"id": name, **asdict(facts)}, indent=1).encode(), told)
            file.replace(target)
            self._sync()
        except OSError:
            target.unlink(missing_ok=True)
            told.unlink(missing_ok=True)
            raise
        return name

    def entries(self) -> Iterator[Entry]:
        """All there is, what came first first."""
        found = (self._entry(path.stem) for path in self.root.glob("*.dcm") if _ID.fullmatch(path.stem))
        yield from sorted(filter(None, found), key=lambda entry: (entry.facts.at, entry.id))

    def entry(self, name: str) -> Entry:
        """One entry by its id; raises Refused when there is none."""
        entry = self._entry(name) if _ID.fullmatch(name) else None
        if entry is None:
            raise Refused(f"nothing in quarantine has the id {_printable(name)[:40]!r}; see overread quarantine list")
        return entry

    def drop(self, name: str) -> None:
        """Remove an entry for good; raises Refused when there is none."""
        self._remove(self.entry(name))
        self._sync()

    def clear(self, before: float) -> int:
        """Remove what came before a moment (seconds since the epoch); returns how many entries that were."""
        old = [entry for entry in self.entries() if entry.facts.at < before]
        for entry in old:
            self._remove(entry)
        self._sweep(before)
        if old:
            self._sync()
        return len(old)

    def relieve(self, wanted_bytes: int, before: float) -> int:
        """Remove the oldest that came before a moment, until that gave ``wanted_bytes``; returns how many it gave.

        What lies here was refused, so its sender has it, too.
        """
        freed = 0
        for entry in self.entries() if wanted_bytes > 0 else ():
            if freed >= wanted_bytes or entry.facts.at >= before:
                break
            freed += _size(entry.file) or 0
            self._remove(entry)
        return freed

    def count_and_bytes(self) -> tuple[int, int]:
        """How many entries there are, and how many bytes their files take."""
        sizes = [size for path in self.root.glob("*.dcm") if (size := _size(path)) is not None]
        return len(sizes), sum(sizes)

    def _entry(self, name: str) -> Entry | None:
        path = self._file(name)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        lost = Facts(stat.st_mtime, LOST, 0, "", "", "", "", stat.st_size)
        return Entry(name, _facts(self._facts_file(name)) or lost, path)

    def _remove(self, entry: Entry) -> None:
        # The bytes first: facts without a file are no entry, and are swept away with time.
        entry.file.unlink(missing_ok=True)
        self._facts_file(entry.id).unlink(missing_ok=True)

    def _sweep(self, before: float) -> None:
        # Facts whose file never came or is gone, half-written facts, and what earlier versions left.
        for path in self.root.iterdir():
            if path.suffix == ".dcm" and _ID.fullmatch(path.stem):
                continue
            if path.suffix == ".json" and self._file(path.stem).exists():
                continue
            with contextlib.suppress(FileNotFoundError):  # half-written facts have got their name meanwhile
                if path.stat().st_mtime < before:
                    path.unlink()

    def _write(self, content: bytes, target: Path) -> None:
        if self._durable:
            write_durable(content, target)
        else:
            target.write_bytes(content)

    def _sync(self) -> None:
        if self._durable:
            sync_folder(self.root)

    def _file(self, name: str) -> Path:
        return self.root / f"{name}.dcm"

    def _facts_file(self, name: str) -> Path:
        return self.root / f"{name}.json"


def _facts(path: Path) -> Facts | None:
    """The facts in a file; None when it is not there, or is not what ``admit`` writes."""
    try:
        values = json.loads(path.read_bytes())
        return Facts(**{f.name: _value(values[f.name], str(f.type)) for f in fields(Facts)})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _value(value: Any, kind: str) -> Any:
    if kind == "str" and isinstance(value, str):
        return _printable(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no {kind}")
    return float(value) if kind == "float" else int(value)


def _printable(text: str) -> str:
    # Strangers choose some of these words; none of them may move the cursor of whoever reads them.
    return "".join(c if c.isprintable() else "?" for c in text)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
