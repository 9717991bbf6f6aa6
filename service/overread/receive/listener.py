"""Ports, the waiting room behind them, and who serves those that were let in."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Protocol

from overread.domain.events import AssociationRefused, Trouble
from overread.ports import Herald
from overread.receive.acceptor import Acceptor
from overread.receive.admission import CONGESTED, Knock, Pass, Refusal
from overread.receive.associations import Associations
from overread.receive.commitment.service import Commitment
from overread.receive.commitment_report import Reports
from overread.receive.door import Door
from overread.receive.intake import Intake
from overread.receive.seats import Gate
from overread.receive.tls import Tls
from overread.receive.upper_layer import FAST, Layers
from overread.receive.waiting import Call, Limits, WaitingRoom

__all__ = ["Door", "Listener"]


class Elsewhere(Protocol):
    """Other processes that serve associations."""

    def welcome(self, wire: socket.socket, address: Any, request: bytes, admitted: Pass, knock: Knock) -> None:
        """As ``Associations.welcome``."""

    def make_way(self, peer: str) -> None:
        """Ask for a place; it may become free a moment later, or not."""

    def __len__(self) -> int: ...


class Listener:
    """Accepts associations and hands what comes to ``intake``; with ``tls`` at a second, secure port, too.

    Each connection passes the waiting room and is judged by ``admission``. Plain ones are served by ``crew``, if any;
    those over TLS are served here, for their cipher's state cannot leave the process. It is the room's ``Host``.
    """

    def __init__(
        self,
        door: Door,
        admission: Gate,
        intake: Intake,
        herald: Herald,
        layers: Layers = FAST,
        *,
        tls: Tls | None = None,
        crew: Elsewhere | None = None,
        commitment: Commitment | None = None,
        reports: Reports | None = None,
    ) -> None:
        self._door, self._tls, self._crew = door, tls, crew
        self._admission, self._herald = admission, herald
        self.here = Associations(door, admission, intake, herald, layers, commitment=commitment, reports=reports)
        handshake_s = tls.terms.handshake_timeout_s if tls else 0.0
        limits = Limits(door.acse_timeout_s, handshake_s, door.max_connections, door.max_connections_per_address)
        self._room = WaitingRoom(self, limits, herald)
        self._plain = Acceptor(door.host, door.port, self._arrive)
        self._secure = Acceptor(door.secure_host or door.host, door.secure_port, self._arrive_securely)

    def start(self) -> None:
        """Bind and serve in the background; raises OSError when a port is taken."""
        self._plain.start()
        if self._tls is not None:
            try:
                self._secure.start()
            except OSError:
                self._plain.stop()
                raise
        self._room.start(self._tls)

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        return self._plain.port

    @property
    def secure_port(self) -> int:
        """The TLS port in use."""
        return self._secure.port

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return len(self.here) + (len(self._crew) if self._crew is not None else 0)

    @property
    def waiting(self) -> int:
        """How many connections have not become associations."""
        return self._room.waiting

    def stop(self) -> None:
        """Stop accepting, end what is open here."""
        self._plain.stop()
        self._secure.stop()
        self._room.stop()
        self.here.stop()

    def judge(self, knock: Knock) -> Pass | Refusal:
        """May somebody come in? When all places are taken, one that is idle makes way. Never raises."""
        try:
            self.here.sweep()
            answer = self._admission.enter(knock)
            if isinstance(answer, Refusal) and answer.passes:
                if self.here.make_way(answer.peer):
                    return self._admission.enter(knock)
                if self._crew is not None:
                    self._crew.make_way(answer.peer)
            return answer
        except Exception as error:
            # The edge to whoever calls: what cannot be judged does not come in.
            self._herald(Trouble("receive", type(error).__name__))
            return CONGESTED

    def tidy(self) -> None:
        """Give back the places of associations that have ended."""
        self.here.sweep()

    def turned_away(self, knock: Knock, refusal: Refusal) -> None:
        """Tell that somebody was told no."""
        result = f"{refusal.result}/{refusal.source}/{refusal.reason}"
        self._herald(AssociationRefused(knock.calling_ae, knock.address, refusal.word, result, knock.called_ae))

    def welcome(self, call: Call, admitted: Pass) -> None:
        """Have a connection served that was let in. Never raises."""
        serving = self.here if self._crew is None or isinstance(call.wire, ssl.SSLSocket) else self._crew
        serving.welcome(call.wire, call.address, call.request, admitted, call.knock())

    def _arrive(self, wire: socket.socket, address: Any) -> None:
        self._room.take(Call(wire, address))

    def _arrive_securely(self, wire: socket.socket, address: Any) -> None:
        self._room.take(Call(wire, address), self._tls)
