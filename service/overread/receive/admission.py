"""Who may associate, and whether there is room."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Admitted:
    """One line of the allow-list: a calling AE title, ``*`` for any, from a network."""

    ae_title: str
    network: Network


@dataclass(frozen=True)
class Refusal:
    """An A-ASSOCIATE-RJ: result, source and reason as in PS3.8 Table 9-21, and the word metrics use for it."""

    result: int
    source: int
    reason: int
    word: str


CALLING_AE = Refusal(1, 1, 3, "calling-ae")
CALLED_AE = Refusal(1, 1, 7, "called-ae")
ADDRESS = Refusal(1, 1, 1, "address")
CONGESTED = Refusal(2, 3, 1, "storage-full")
LIMIT = Refusal(2, 3, 2, "limit")


class Judge(Protocol):
    """Who decides on association requests, here or elsewhere."""

    def judge(self, calling_ae: str, called_ae: str, address: str, associations: int) -> Refusal | None:
        """None when the caller may come in; ``associations`` counts those that are open already."""


class Admission:
    """Decides on association requests.

    ``called_ae`` None accepts any called AE title. ``room`` says whether the spool has space left.
    """

    def __init__(
        self,
        allow: Sequence[tuple[str, str]],
        called_ae: str | None,
        max_associations: int,
        room: Callable[[], bool],
    ) -> None:
        self._allow = [Admitted(ae, ipaddress.ip_network(network)) for ae, network in allow]
        self._called_ae = called_ae
        self._max = max_associations
        self._room = room

    def judge(self, calling_ae: str, called_ae: str, address: str, associations: int) -> Refusal | None:
        """None when the caller may come in; ``associations`` counts those that are open already."""
        host = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped:
            host = host.ipv4_mapped
        here = [a for a in self._allow if host.version == a.network.version and host in a.network]
        if not here:
            return ADDRESS
        if not any(a.ae_title in ("*", calling_ae) for a in here):
            return CALLING_AE
        if self._called_ae is not None and called_ae != self._called_ae:
            return CALLED_AE
        if associations >= self._max:
            return LIMIT
        return None if self._room() else CONGESTED

    def has_room(self) -> bool:
        """Whether the spool has space left."""
        return self._room()

    def only_loopback(self) -> bool:
        """Whether nobody outside this machine may call."""
        return all(a.network.is_loopback for a in self._allow)
