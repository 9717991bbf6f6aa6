"""Associations that are kept open for a while, so that the next results need not open another."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

from overread.deliver.association import Call, Line, open_line
from overread.deliver.pdu import Pair
from overread.domain.peer import Peer

KEPT_S = 5.0


class Lines:
    """Associations with one peer, ``most`` at once, for some peers take no more. A line is one thread's while it is
    lent; after a fault or a silence it is gone."""

    def __init__(self, peer: Peer, timeout_s: float, tls: ssl.SSLContext | None = None, most: int = 1) -> None:
        self.peer, self.timeout_s = peer, timeout_s
        self._tls, self._most, self._lent = tls, most, 0
        self._free: list[Line] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def line(
        self, own_ae_title: str, contexts: Sequence[Pair], roles: Sequence[str] = (), *, keep: bool = True
    ) -> Iterator[Line]:
        """An association on which all ``contexts`` were proposed, new or used before. Raises as ``open_line``.

        One with ``roles`` is never one that was used before; unless told to ``keep`` it, it is released at the end.
        """
        line = None if roles else self._take(own_ae_title, contexts)
        if line is None:
            self._make_room()
            line = open_line(Call(self.peer, own_ae_title, self.timeout_s, self._tls), contexts, roles)
        with self._lock:
            self._lent += 1
        try:
            yield line
        except BaseException:
            line.abort()
            raise
        finally:
            with self._lock:
                self._lent -= 1
        self._give_back(line, keep=keep and not roles)

    def rest(self, kept_s: float = KEPT_S) -> None:
        """Release what has not been used for ``kept_s`` seconds, and what the peer has ended."""
        before = time.monotonic() - kept_s
        with self._lock:
            old = [line for line in self._free if line.used_at <= before or not line.is_quiet()]
            self._free = [line for line in self._free if line not in old]
        for line in old:
            line.release()

    def _take(self, own_ae_title: str, contexts: Sequence[Pair]) -> Line | None:
        self.rest()
        with self._lock:
            for line in self._free:
                if line.call.own_ae_title == own_ae_title and line.proposed.issuperset(contexts):
                    self._free.remove(line)
                    return line
        return None

    def _make_room(self) -> None:
        with self._lock:
            surplus = max(0, self._lent + len(self._free) + 1 - self._most)
            released, self._free = self._free[:surplus], self._free[surplus:]
        for line in released:
            line.release()

    def _give_back(self, line: Line, *, keep: bool) -> None:
        line.used_at = time.monotonic()
        with self._lock:
            kept = keep and line.is_open and self._lent + len(self._free) < self._most
            if kept:
                self._free.append(line)
        if not kept:
            line.release()
