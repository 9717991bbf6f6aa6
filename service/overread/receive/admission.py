"""Who may associate, how much of it, and whether there is room.

Nothing here knows a socket or an association: what goes in and comes out are small values, so that one ``Admission``
can serve several processes.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
TITLE = "{ae_title}"
MINUTE_S = 60.0
MOST_PEERS = 4096


class Row(NamedTuple):
    """One line of the allow-list: who may call, and how much.

    A calling AE title, ``*`` for any, from a network (CIDR), to a called AE title (empty: any that is served), with a
    client certificate that carries a name like ``certificate`` (empty: none needed). The limits hold for each peer,
    which is the AE title when the row names one, and else the address; 0 is no limit, but of associations half of all.
    """

    ae_title: str
    network: str
    called_ae: str = ""
    certificate: str = ""
    max_associations: int = 0
    max_per_minute: int = 0
    max_bytes_per_day: int = 0


@dataclass(frozen=True)
class Knock:
    """Somebody asks for an association. ``certificate`` are the names in the client certificate, none without one."""

    calling_ae: str
    called_ae: str
    address: str
    certificate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """An association may be opened. ``peer`` is whose limits it counts for; ``metered`` asks for ``spend``."""

    id: int
    peer: str
    metered: bool = False


@dataclass(frozen=True)
class Refusal:
    """An A-ASSOCIATE-RJ: result, source and reason as in PS3.8 Table 9-21, and the word metrics use for it.

    ``passes``: it will once somebody leaves; of ``peer`` if that is named.
    """

    result: int
    source: int
    reason: int
    word: str
    passes: bool = False
    peer: str = ""


CALLING_AE = Refusal(1, 1, 3, "calling-ae")
CALLED_AE = Refusal(1, 1, 7, "called-ae")
ADDRESS = Refusal(1, 1, 1, "address")
CERTIFICATE = Refusal(1, 1, 3, "certificate")
CONGESTED = Refusal(2, 3, 1, "storage-full")
RATE = Refusal(2, 3, 1, "rate")
QUOTA = Refusal(2, 3, 1, "quota")
LIMIT = Refusal(2, 3, 2, "limit", passes=True)
PEER_LIMIT = Refusal(2, 3, 2, "peer-limit", passes=True)


@dataclass
class _Peer:
    """What one peer has had."""

    row: Row
    open: int = 0
    entered: deque[float] = field(default_factory=deque)
    day: int = 0
    bytes_today: int = 0


class Admission:
    """Decides on association requests; safe to use from many threads.

    ``called`` are the AE titles that are served, None for any. ``room`` says whether the spool has space left. Bytes
    are counted for a calendar day of local time, in memory: a restart begins anew.
    """

    def __init__(
        self,
        allow: Sequence[Row | tuple[str, str]],
        called: Collection[str] | str | None,
        max_associations: int,
        room: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = [(Row(*row), ipaddress.ip_network(row[1])) for row in allow]
        self._place = {row: n for n, (row, _) in enumerate(self._rows)}
        self._called = {called} if isinstance(called, str) else called
        self._max = max_associations
        self._room, self._clock = room, clock
        self._peers: dict[str, _Peer] = {}
        self._passes: dict[int, _Peer] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def enter(self, knock: Knock) -> Pass | Refusal:
        """Let somebody in, or say why not. A pass is good until ``leave``."""
        row = self._row(knock)
        if isinstance(row, Refusal):
            return row
        with self._lock:
            name = f"{self._place[row]} {knock.address if row.ae_title == ANY else knock.calling_ae}"
            peer = self._peer(name, row)
            refusal = self._full(peer, name)
            if refusal is None and not self._room():
                refusal = CONGESTED
            if refusal is not None:
                return refusal
            number = next(self._numbers)
            self._passes[number] = peer
            peer.open += 1
            if row.max_per_minute:
                peer.entered.append(time.monotonic())
            return Pass(number, name, metered=row.max_bytes_per_day > 0)

    def leave(self, pass_id: int) -> None:
        """An association has ended; more than once does no harm."""
        with self._lock:
            peer = self._passes.pop(pass_id, None)
            if peer is not None:
                peer.open -= 1

    def spend(self, pass_id: int, size_bytes: int) -> bool:
        """Count bytes that came; False when the peer has had all that it may have today."""
        with self._lock:
            peer = self._passes.get(pass_id)
            if peer is None:
                return True
            self._today(peer)
            peer.bytes_today += size_bytes
            return not self._spent(peer)

    def has_room(self) -> bool:
        """Whether the spool has space left."""
        return self._room()

    def only_loopback(self) -> bool:
        """Whether nobody outside this machine may call."""
        return all(network.is_loopback for _, network in self._rows)

    def ae_title_of(self, names: Collection[str]) -> str | None:
        """The AE title that a client certificate with these names stands for; None when no row maps it to one."""
        for row, _ in self._rows:
            if row.certificate and row.ae_title != ANY and _carries(names, row.certificate, row.ae_title):
                return row.ae_title
            if TITLE in row.certificate and row.ae_title == ANY:
                before, _, after = row.certificate.lower().partition(TITLE)
                pattern = f"{_glob(before)}(?P<title>.+?){_glob(after)}"
                found = (re.fullmatch(pattern, name, re.IGNORECASE) for name in names)
                title = next((match["title"].upper() for match in found if match), "")
                if 0 < len(title) <= 16:
                    return title
        return None

    def _row(self, knock: Knock) -> Row | Refusal:
        host = ipaddress.ip_address(knock.address.partition("%")[0])
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped:
            host = host.ipv4_mapped
        here = [row for row, network in self._rows if host.version == network.version and host in network]
        if not here:
            return ADDRESS
        # Rows that name the caller speak for it: one for anybody does not let it in where they do not.
        named = [row for row in here if row.ae_title == knock.calling_ae]
        rows = named or [row for row in here if row.ae_title == ANY]
        if not rows:
            return CALLING_AE
        rows = [row for row in rows if self._serves(row, knock.called_ae)]
        if not rows:
            return CALLED_AE
        fit = (r for r in rows if not r.certificate or _carries(knock.certificate, r.certificate, knock.calling_ae))
        return next(fit, CERTIFICATE)

    def _serves(self, row: Row, called_ae: str) -> bool:
        if row.called_ae:
            return called_ae == row.called_ae
        return self._called is None or called_ae in self._called

    def _peer(self, name: str, row: Row) -> _Peer:
        peer = self._peers.get(name)
        if peer is None:
            if len(self._peers) >= MOST_PEERS:
                self._forget()
            peer = self._peers[name] = _Peer(row)
        self._today(peer)
        while peer.entered and time.monotonic() - peer.entered[0] > MINUTE_S:
            peer.entered.popleft()
        return peer

    def _forget(self) -> None:
        # Those that have nothing open and nothing counted begin anew all the same.
        idle = [n for n, p in self._peers.items() if not p.open and not p.entered and not p.bytes_today]
        for name in idle or [n for n, p in self._peers.items() if not p.open]:
            del self._peers[name]

    def _full(self, peer: _Peer, name: str) -> Refusal | None:
        row = peer.row
        if row.max_per_minute and len(peer.entered) >= row.max_per_minute:
            return RATE
        if self._spent(peer):
            return QUOTA
        if peer.open >= (row.max_associations or share(self._max)):
            return replace(PEER_LIMIT, peer=name)
        return LIMIT if len(self._passes) >= self._max else None

    def _spent(self, peer: _Peer) -> bool:
        return bool(peer.row.max_bytes_per_day) and peer.bytes_today >= peer.row.max_bytes_per_day

    def _today(self, peer: _Peer) -> None:
        now = time.localtime(self._clock())
        day = now.tm_year * 1000 + now.tm_yday
        if peer.day != day:
            peer.day, peer.bytes_today = day, 0


def share(max_associations: int) -> int:
    """How many of all associations one peer may have when its row does not say: half, so that others find a place."""
    return max(1, (max_associations + 1) // 2)


def _carries(names: Collection[str], pattern: str, ae_title: str) -> bool:
    """Whether one of the names is like ``pattern``, in which ``{ae_title}`` is the caller's; case does not matter."""
    title = re.sub(r"([*?[])", r"[\1]", ae_title)
    wanted = pattern.replace(TITLE, title).lower()
    return any(fnmatchcase(name.lower(), wanted) for name in names)


def _glob(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
