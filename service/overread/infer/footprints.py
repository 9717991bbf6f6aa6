"""What models take, learned from their own readings and kept in a small file beside the ledger."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from overread.domain.card import Card

_log = logging.getLogger(__name__)
GB = 1 << 30
UNKNOWN_BYTES = 2 * GB  # Python, torch and a small network; what is heavier says so after its first reading
MARGIN = 1.1
FORGET = 0.98  # so that one giant of a study does not count for ever


@dataclass(frozen=True)
class Footprint:
    """The most that one process of a model held: of the machine's memory, and of its device's; in bytes."""

    host_bytes: int = 0
    device_bytes: int = 0


class Footprints:
    """What each model took so far on each kind of device. Thread-safe; without a file it learns for itself alone."""

    def __init__(self, file: Path | None = None, budget_bytes: int = 1 << 62) -> None:
        self._file, self._lock, self._budget = file, threading.Lock(), budget_bytes
        self._known: dict[str, Footprint] = _read(file)

    def need(self, card: Card, device: str) -> Footprint:
        """What a reading must be given room for: what was learned, what the card says, or a guess."""
        with self._lock:
            known = self._known.get(_key(card, device))
        if known is not None:
            return Footprint(int(known.host_bytes * MARGIN), int(known.device_bytes * MARGIN))
        said = card.runtime.memory_mb << 20
        # Nothing is guessed to be larger than all there is: it is read alone then, and it is known what it takes.
        return Footprint(said or min(UNKNOWN_BYTES + 3 * _weights(card), self._budget))

    def learn(self, card: Card, device: str, seen: Footprint) -> None:
        """A reading has ended and took so much."""
        key = _key(card, device)
        with self._lock:
            before = self._known.get(key, Footprint())
            host = max(seen.host_bytes, int(before.host_bytes * FORGET))
            self._known[key] = Footprint(host, max(seen.device_bytes, int(before.device_bytes * FORGET)))
            if self._file is not None and self._known[key] != before:
                self._write(self._file)

    def known(self, card: Card, device: str) -> Footprint:
        """What was learned; nothing when it was never read here."""
        with self._lock:
            return self._known.get(_key(card, device), Footprint())

    def _write(self, file: Path) -> None:
        scratch = file.with_suffix(".new")
        try:
            scratch.write_text(json.dumps({key: asdict(one) for key, one in sorted(self._known.items())}, indent=1))
            scratch.replace(file)
        except OSError as error:  # it can be learned again
            _log.warning("what models take cannot be kept in %s: %s", file.name, error.strerror)


def _read(file: Path | None) -> dict[str, Footprint]:
    if file is None or not file.exists():
        return {}
    try:
        return {key: Footprint(**one) for key, one in json.loads(file.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("what models take is learned anew, for %s cannot be read: %s", file.name, type(error).__name__)
        return {}


def _key(card: Card, device: str) -> str:
    return f"{card.name} {card.version} {'cuda' if device.startswith('cuda') else 'cpu'}"


def _weights(card: Card) -> int:
    files = [card.folder / path for path in card.all_weights]
    return sum(file.stat().st_size for file in files if file.is_file())
